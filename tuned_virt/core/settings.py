# SPDX-License-Identifier: GPL-2.0-or-later
"""A profile's settings file: read as TuneD reads it, with an error for each line that it would not
apply as it is written."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tuned_virt.core.options import OptionError, template
from tuned_virt.frozen_dataclasses import dataclass, field, replace

IMAGES = "/usr/lib/tuned-virt"
"""Where the builder of an image has its settings, in a file of the same name: below an image-based
system's read-only /usr, so that they change with the image and not with /etc (hier(7))."""

MACHINES = "/etc/tuned"

SECTION = "variables"
"""The section that a file may have; without any it is read as this one."""

BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"

FORM = "NAME=VALUE"

NAME = re.compile(r"\w+(?:\.\S.*)?")
"""A setting, or one for a group of guests: vm_policy.db*."""


@dataclass(frozen=True)
class Setting:
    """What a file sets, in which line, with the other settings of the file that it uses replaced.

    `uses` are the names in ${…}, also those that the file does not set before.
    """

    name: str
    value: str
    line: int
    uses: frozenset[str] = frozenset()
    file: str = field(default="", compare=False)


class SettingError(OptionError):
    """What is wrong in a settings file: where, what stands there, and what is valid."""

    def __init__(self, file: str, line: int, written: str, valid: str, option: str = "") -> None:
        super().__init__(option, written, valid)
        self.file = file
        self.line = line

    def __str__(self) -> str:
        where = f"{self.file}: line {self.line}: " if self.line else f"{self.file}: "
        quoted = f"'{self.value}' " if self.value else ""
        return f"{where}{quoted}{self.valid}"


@dataclass(frozen=True)
class SettingsFile:
    """All that a file sets, by name, and the lines that are not settings."""

    path: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    errors: tuple[SettingError, ...] = ()


def read(path: str) -> SettingsFile:
    """A settings file; one that cannot be read has that as its error. Read anew once it changes.

    What a file in /etc/tuned does not set is as the image's file of the same name has it.
    """
    return layered([_of_one(one) for one in layers(path)])


def layered(files: Sequence[SettingsFile]) -> SettingsFile:
    """Files as one, that of the last: its settings replace those of the files before it."""
    if len(files) == 1:
        return files[0]
    errors = tuple(error for one in files for error in one.errors)
    merged = {name: one for file in files for name, one in file.settings.items()}
    return SettingsFile(files[-1].path, merged, errors)


def layers(path: str) -> list[str]:
    """The files that are read for one, those whose settings others replace first."""
    folder, name = os.path.split(path)
    image = os.path.join(IMAGES, name)
    return [image, path] if folder == MACHINES and _may_be_there(image) else [path]


def _may_be_there(path: str) -> bool:
    """False for what is surely not there: what cannot be looked at is an error once it is read."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _of_one(path: str) -> SettingsFile:
    try:
        return _read(path, version(path))
    except FileNotFoundError:
        missing = "there is no such file; an empty one means that every setting is at its default"
        return SettingsFile(path, errors=(SettingError(path, 0, "", missing),))
    except OSError as error:
        return SettingsFile(path, errors=(SettingError(path, 0, "", f"{error.strerror}"),))


def version(path: str) -> tuple[int, ...]:
    """What differs once a file has changed. Raises OSError."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@functools.lru_cache(maxsize=8)
def _read(path: str, _version: tuple[int, ...]) -> SettingsFile:
    with open(path, "rb") as file:
        data = file.read()
    try:
        return parse(path, data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        written = data.splitlines()[line - 1].decode("utf-8", "backslashreplace").strip()
        wrong = SettingError(path, line, written[:80], "is not UTF-8 text; save the file as UTF-8")
        return SettingsFile(path, errors=(wrong,))


def parse(path: str, text: str) -> SettingsFile:
    """The settings of a file's text. Pure."""
    errors: list[SettingError] = []
    settings: dict[str, Setting] = {}
    if text.startswith(BOM):
        errors.append(
            SettingError(path, 1, "", "it begins with a byte order mark (BOM); save it without one")
        )
    before = ""
    for number, line in _lines(text.lstrip(BOM)):
        if _continues(line, before):
            wrong = f"is indented: TuneD reads it as part of '{before.strip()[:40]}'"
        else:
            wrong, before = _wrong(line, settings), line
        if wrong:
            errors.append(SettingError(path, number, line.strip()[:80], wrong))
        elif not line.strip().startswith("["):
            setting = replace(_setting(line, number, settings), file=path)
            settings[setting.name] = setting
    return SettingsFile(path, settings, tuple(errors))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that say something, without comments: a # after white space begins one, ; does not."""
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        said = re.sub(r"(?:^|\s)#.*", "", line).rstrip()
        if said and not said.lstrip().startswith((";", "#")):
            yield number, said


def _continues(line: str, before: str) -> bool:
    """Whether a line goes on with the value of one before it, by its indentation."""
    if not before or before.strip().startswith("["):
        return False
    return len(line) - len(line.lstrip()) > len(before) - len(before.lstrip())


def _wrong(line: str, settings: Mapping[str, Setting]) -> str:
    """Why a line is not what it looks like, "" where nothing is wrong."""
    if line.strip().startswith("["):
        return (
            ""
            if line.strip() == f"[{SECTION}]"
            else f"is no section of a settings file; write {FORM}"
        )
    name, equals, value = (part.strip() for part in line.partition("="))
    if equals and NAME.fullmatch(name):
        first = settings.get(name)
        return f"is a second {name}, after line {first.line}; keep one of them" if first else ""
    return f"is not of the form {FORM}{_meant(name, equals, value)}"


def _meant(name: str, equals: str, value: str) -> str:
    """What a line in another file's form would be here."""
    words = re.fullmatch(r"(?:export\s+|set\s+)?([\w-]+)\s*[:=\s]\s*(.*)", f"{name}{equals}{value}")
    return f"; did you mean {words[1].replace('-', '_')}={words[2]}?" if words else ""


def _setting(line: str, number: int, earlier: Mapping[str, Setting]) -> Setting:
    """A line's setting: ${name} is an earlier one's value; a \\ before it keeps it."""
    name, _, value = (part.strip() for part in line.partition("="))
    uses = frozenset(re.findall(r"(?<!\\)\$\{(\w+)\}", value))
    known = re.sub(
        r"(?<!\\)\$\{(\w+)\}",
        lambda found: earlier[found[1]].value if found[1] in earlier else found[0],
        value,
    )
    return Setting(name, re.sub(r"\\(\$\{\w+\})", r"\1", known), number, uses)


def alike(name: str, known: Iterable[str]) -> list[str]:
    """Known names that a name was probably meant to be, the likeliest first."""
    from difflib import get_close_matches  # takes time to import

    names = sorted(known)
    lower = name.lower()
    plain = lower.replace(".", "_")
    exact = [one for one in (lower, plain, lower.rpartition(".")[2]) if one in names]
    return exact or get_close_matches(template(lower), names)
