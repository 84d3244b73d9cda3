# SPDX-License-Identifier: GPL-2.0-or-later
"""What was there before us: originals on disk before the first write, so that any process can undo.

One JSON file in a folder on tmpfs, replaced atomically under a lock. It survives the daemon's
`kill -9`; it does not survive a reboot, when the kernel's values are new as well (it is keyed by
boot id, for a /run that is not tmpfs).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

log = logging.getLogger("tuned")

FOLDER = Path("/run/tuned-virt")
FORMAT = 1


class OriginalsError(Exception):
    """The originals cannot be kept (full or read-only /run), so nothing may be written."""


@dataclass
class PluginOriginals:
    """What is known of one plugin: originals by setting, and why some cannot be put back now.

    `owner` is the process that holds the tuning, as (pid, start time in clock ticks).
    """

    originals: dict[str, str] = field(default_factory=dict)
    pending: dict[str, str] = field(default_factory=dict)
    owner: tuple[int, int] | None = None


def only_root_writes(path: str, flags: int) -> int:
    """An opener for files that root believes: `tuned -d` runs with a umask of 0."""
    descriptor = os.open(path, flags, 0o644)
    os.fchmod(descriptor, 0o644)
    return descriptor


def boot_id() -> str:
    """The running kernel's boot id."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks after boot (proc(5), stat field 22); None if gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])


class Originals:
    """The originals of all plugins, shared by every process of this boot."""

    def __init__(self, folder: Path = FOLDER, boot: str | None = None) -> None:
        self._file = folder / "baseline.json"
        self._lock = folder / "baseline.lock"
        self._new = folder / "baseline.new"
        self._boot = boot or boot_id()
        self._seen: tuple[tuple[int, ...], dict[str, PluginOriginals]] | None = None

    def record(self, plugin: str) -> PluginOriginals:
        """What is known of one plugin, to read only; empty where nothing is."""
        version, seen = self._version(), self._seen
        if seen is None or seen[0] != version:
            seen = self._seen = (version, self.all())
        return seen[1].get(plugin, PluginOriginals())

    def _version(self) -> tuple[int, ...]:
        """What differs between one content of the file and the next, which is always a new file."""
        try:
            status = os.stat(self._file)
        except OSError:
            return ()
        return status.st_ino, status.st_mtime_ns, status.st_size

    def all(self) -> dict[str, PluginOriginals]:
        """What is known, by plugin. An unreadable or stale file is said and set aside."""
        try:
            with open(self._file) as file:
                text = file.read()
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            return self._set_aside(f"cannot be read: {error}")
        try:
            return self._parse(text)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return self._set_aside(f"is damaged ({type(error).__name__}: {error})")

    def _parse(self, text: str) -> dict[str, PluginOriginals]:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, not {FORMAT}")
        if content["boot_id"] != self._boot:
            return self._set_aside("is of an earlier boot, whose values are gone with it")
        return {name: _record(entry) for name, entry in content["plugins"].items()}

    def _set_aside(self, reason: str) -> dict[str, PluginOriginals]:
        aside = self._file.with_name(f"{self._file.name}.{time.time_ns()}")
        with contextlib.suppress(OSError):
            self._file.rename(aside)
            log.warning("baseline %s %s; set aside as %s", self._file, reason, aside.name)
        return {}

    def keep(self, plugin: str, originals: Mapping[str, str]) -> None:
        """Keep originals that are not kept yet (the first writer wins), and own them.

        Raises BaselineError.
        """
        if not originals:
            return
        record = self.record(plugin)
        owner = (os.getpid(), start_time(os.getpid()) or 0)
        if originals.keys() <= record.originals.keys() and record.owner == owner:
            return
        with self._changing() as records:
            record = records.setdefault(plugin, PluginOriginals())
            record.originals = {**originals, **record.originals}
            record.owner = owner

    def amend(self, plugin: str, originals: Mapping[str, str]) -> None:
        """Keep these in place of what was kept of the same settings. Raises BaselineError."""
        with self._changing() as records:
            records.setdefault(plugin, PluginOriginals()).originals.update(originals)

    def forget(self, plugin: str, settings: Iterable[str]) -> None:
        """Drop settings whose originals are back. Raises BaselineError."""
        with self._changing() as records:
            record = records.get(plugin, PluginOriginals())
            for setting in settings:
                record.originals.pop(setting, None)
                record.pending.pop(setting, None)
            if not record.originals:
                records.pop(plugin, None)

    def set_pending(self, plugin: str, reasons: Mapping[str, str]) -> None:
        """Say which kept originals cannot be put back now, and why. Raises BaselineError."""
        if self.record(plugin).pending == reasons:
            return
        with self._changing() as records:
            if plugin in records:
                records[plugin].pending = dict(reasons)

    def release(self, plugin: str) -> None:
        """No process holds this plugin's tuning any more. Raises BaselineError."""
        if self.record(plugin).owner is None:
            return
        with self._changing() as records:
            if plugin in records:
                records[plugin].owner = None

    def holder(self, plugin: str) -> int | None:
        """Pid of the live process that holds this plugin's tuning, else None."""
        owner = self.record(plugin).owner
        return owner[0] if owner and start_time(owner[0]) == owner[1] else None

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, PluginOriginals]]:
        try:
            with self._locked():
                records = self.all()
                yield records
                self._replace(records)
        except OSError as error:
            raise OriginalsError(f"cannot keep originals in {self._file}: {error}") from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            lock = os.open(self._lock, flags, 0o600)
        except FileNotFoundError:
            self._file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            lock = os.open(self._lock, flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _replace(self, records: Mapping[str, PluginOriginals]) -> None:
        content = {
            "format": FORMAT,
            "boot_id": self._boot,
            "plugins": {name: vars(record) for name, record in records.items()},
        }
        if not records:
            self._file.unlink(missing_ok=True)
            return
        with open(self._new, "w", opener=only_root_writes) as file:
            file.write(json.dumps(content) + "\n")
        os.replace(self._new, self._file)


def _record(entry: Any) -> PluginOriginals:
    owner = entry["owner"]
    record = PluginOriginals(
        originals=dict(entry["originals"]),
        pending=dict(entry["pending"]),
        owner=(int(owner[0]), int(owner[1])) if owner else None,
    )
    if not all(isinstance(value, str) for value in record.originals.values()):
        raise TypeError("an original that is not text")
    return record
