# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that write schedulers at boot: systemd's units, tmpfiles.d, sysfsutils', rc.local and
cron's."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TypeVar

from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel import shell_writes
from tuned_virt.kernel.files import FORBIDDEN, OF_ANOTHER_KIND, KernelFileError, KernelFS

T = TypeVar("T")

SCHEDULER = "queue/scheduler"

TMPFILES = (
    "/etc/tmpfiles.d",
    "/run/tmpfiles.d",
    "/usr/local/lib/tmpfiles.d",
    "/usr/lib/tmpfiles.d",
)
"""From the highest precedence down (tmpfiles.d(5)): a file hides one of its name in a later one."""

UNITS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
"""From the highest precedence down (systemd.unit(5))."""

ENABLING = UNITS[:2]
"""Folders with the links by which an administrator, or a package, has enabled a unit."""

RC_LOCAL = ("/etc/rc.local", "/etc/rc.d/rc.local", "/etc/init.d/boot.local")

CRONTABS = ("/etc/crontab", "/var/spool/cron/root", "/var/spool/cron/crontabs/root")
CRON_FOLDER = "/etc/cron.d"

SYSFS_CONF, SYSFS_FOLDER = "/etc/sysfs.conf", "/etc/sysfs.d"

EXEC = re.compile(r"(Exec(?:Condition|StartPre|StartPost|Start))\s*=\s*(.*)")
PREFIXES = "@-:+!|"
"""What systemd.service(5) allows before a command."""

SCRIPT_BYTES = 1 << 16
"""Most that is read of a script."""


@dataclass(frozen=True)
class BootSetting:
    """A scheduler that is written to a path of sysfs, a pattern: by whom, and where that says so.

    surely  it is written at each boot, whatever the machine is like
    """

    what: str
    place: str
    path: str
    scheduler: str
    surely: bool


def settings(fs: KernelFS) -> Iterator[BootSetting]:
    """All of them, in the order in which they are carried out. Raises KernelFileError."""
    yield from _tmpfiles(fs)
    yield from _sysfs_conf(fs)
    yield from _units(fs)
    yield from _rc_local(fs)
    yield from _cron(fs)


def read(fs: KernelFS, path: str) -> str:
    """A file's text, "" for what is not there, no file, or not for this process.

    Raises KernelFileError.
    """
    return _told(lambda: fs.read_optional(path) or "", "")


def scripts(fs: KernelFS, command: str) -> Iterator[str]:
    """Texts of the scripts that a command names. Raises KernelFileError."""
    for path in re.findall(r"""(?:^|[\s"'=])(/[^\s"';|&<>]+)""", command):
        if not path.startswith(("/sys/", "/dev/", "/proc/")):
            text = _told(functools.partial(fs.script, path, SCRIPT_BYTES), "")
            if text:
                yield text


def _told(ask: Callable[[], T], otherwise: T) -> T:
    """An answer, or another where this process may not know, or nothing of that kind is there.

    Raises KernelFileError for all else: a file that cannot be read may well say something.
    """
    try:
        return ask()
    except KernelFileError as error:
        if error.code in FORBIDDEN | OF_ANOTHER_KIND:
            return otherwise
        raise


def _names(fs: KernelFS, folder: str) -> list[str]:
    nothing: list[str] = []
    return sorted(_told(lambda: fs.names(folder), nothing))


def _exists(fs: KernelFS, path: str) -> bool:
    return _told(lambda: fs.exists(path), False)


def _executable(fs: KernelFS, path: str) -> bool:
    return _told(lambda: fs.executable(path), False)


def _tmpfiles(fs: KernelFS) -> Iterator[BootSetting]:
    paths: dict[str, str] = {}
    for folder in TMPFILES:
        for name in _names(fs, folder):
            if name.endswith(".conf"):
                paths.setdefault(name, f"{folder}/{name}")
    for _, path in sorted(paths.items()):
        for number, line in _lines(read(fs, path)):
            words = line.replace('"', "").split()
            if len(words) > 6 and words[0].startswith("w") and words[1].endswith(SCHEDULER):
                place = f"{path}:{number}"
                yield BootSetting("tmpfiles.d line", place, words[1], words[6], True)


def _sysfs_conf(fs: KernelFS) -> Iterator[BootSetting]:
    more = [f"{SYSFS_FOLDER}/{name}" for name in _names(fs, SYSFS_FOLDER) if name.endswith(".conf")]
    for path in (SYSFS_CONF, *more):
        for number, line in _lines(read(fs, path)):
            found = re.match(rf"(?:/sys/)?(\S*{SCHEDULER})\s*=\s*(\S+)", line)
            if found:
                place = f"{path}:{number}"
                yield BootSetting("sysfsutils line", place, f"/sys/{found[1]}", found[2], True)


def _rc_local(fs: KernelFS) -> Iterator[BootSetting]:
    for path in RC_LOCAL:
        text = read(fs, path)
        if SCHEDULER in text and _executable(fs, path):
            for write in shell_writes.writes(text, SCHEDULER):
                place = f"{path}:{write.line}"
                yield BootSetting("script", place, write.path, write.value, write.surely)


def _cron(fs: KernelFS) -> Iterator[BootSetting]:
    """Lines of crontab(5) that are run at boot."""
    for path in (*CRONTABS, *(f"{CRON_FOLDER}/{name}" for name in _names(fs, CRON_FOLDER))):
        for number, line in _lines(read(fs, path)):
            if line.startswith("@reboot"):
                yield from _written(fs, f"{path}:{number}", line, "cron line")


# --- systemd --------------------------------------------------------------------------------


def _units(fs: KernelFS) -> Iterator[BootSetting]:
    there = {folder: frozenset(_names(fs, folder)) for folder in UNITS}
    for name in sorted(_enabled(fs, there)):
        commands: list[tuple[str, str, str]] = []
        for path in _files(fs, name, there):
            for number, key, command in _commands(read(fs, path)):
                if command:
                    commands.append((key, f"{path}:{number}", command))
                else:
                    commands = [one for one in commands if one[0] != key]
        for _, place, command in commands:
            yield from _written(fs, place, _plain(command, name), "systemd unit")


def _written(fs: KernelFS, place: str, command: str, what: str) -> Iterator[BootSetting]:
    for text in (command, *scripts(fs, command)):
        for write in shell_writes.writes(text, SCHEDULER):
            yield BootSetting(what, place, write.path, write.value, write.surely)


def _enabled(fs: KernelFS, there: Mapping[str, Collection[str]]) -> set[str]:
    """Services that are started at boot, also by a timer that is."""
    names = {
        name
        for folder in ENABLING
        for links in there[folder]
        if links.endswith((".wants", ".requires", ".upholds"))
        for name in _names(fs, f"{folder}/{links}")
    }
    timed = {f"{name[: -len('.timer')]}.service" for name in names if name.endswith(".timer")}
    return {name for name in names | timed if name.endswith(".service")}


def _files(fs: KernelFS, name: str, there: Mapping[str, Collection[str]]) -> list[str]:
    """A service's own file, or its template's, and what is dropped in; `there` are the names in
    each folder of units."""
    template = re.sub(r"@.*\.", "@.", name)
    own = (
        f"{folder}/{one}"
        for one in dict.fromkeys((name, template))
        for folder in UNITS
        if one in there[folder]
    )
    first = next((path for path in own if _exists(fs, path)), "")
    dropped = [
        f"{folder}/{one}.d/{file}"
        for one in dict.fromkeys((template, name))
        for folder in reversed(UNITS)
        if f"{one}.d" in there[folder]
        for file in _names(fs, f"{folder}/{one}.d")
        if file.endswith(".conf")
    ]
    return [first, *dropped] if first else dropped


def _commands(text: str) -> Iterator[tuple[int, str, str]]:
    """Lines of a unit that start something: number, key, command; without one it resets the key."""
    begun, joined = 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith(("#", ";")):
            continue
        begun = begun or number
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        found = EXEC.match(joined + line)
        if found:
            yield begun, found[1], found[2].strip()
        begun, joined = 0, ""


def _plain(command: str, name: str) -> str:
    """A command as it is run, with what stands for a template's instance."""
    instance = name.partition("@")[2].rpartition(".")[0]
    command = command.lstrip(PREFIXES).replace("$$", "$")
    return re.sub(r"%[iI]", lambda found: instance, command).replace("%%", "%")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith(("#", ";")):
            yield number, line.strip()
