# SPDX-License-Identifier: GPL-2.0-or-later
"""A profile's variables file: read as TuneD does, or written line by line, all else kept."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from tuned_virt.cli.common import CouldNot
from tuned_virt.core.options import BadOptions

SECTION = "variables"
"""The section that a file without any is read as."""


@dataclass(frozen=True)
class Variable:
    """A variable to set, with the comments (each with its #, or empty) that go above it."""

    name: str
    value: str
    comments: tuple[str, ...] = ()


@dataclass(frozen=True)
class SetVariable:
    """A variable that a file sets, and in which line."""

    name: str
    value: str
    line: int


def options(file: Path, named: Mapping[str, str]) -> dict[str, SetVariable]:
    """What a file sets of options, by the names of their variables. Raises CouldNot."""
    found = {named[one.name]: one for one in read(file) if one.name in named}
    for one in found.values():
        if "${f:" in one.value:
            raise CouldNot(
                f"{file}: line {one.line}: {one.name} calls a function that only TuneD can evaluate"
            )
    return found


def refused(file: Path, found: Mapping[str, SetVariable], bad: BadOptions) -> CouldNot:
    """The error that names the lines of bad options."""
    lines = {name: f"{file}: line {one.line}: " for name, one in found.items()}
    return CouldNot("\n".join(f"{lines.get(error.option, '')}{error}" for error in bad.errors))


def read(file: Path) -> list[SetVariable]:
    """The variables that a file sets, as TuneD reads and expands them. Raises CouldNot.

    A comment is a # after white space, not a ;, and ${name} is an earlier variable's value
    (TuneD's tuned/profiles/variables.py).
    """
    text = _text(file)
    parser = configparser.ConfigParser(
        delimiters=("=",),
        inline_comment_prefixes=("#",),
        strict=False,
        interpolation=None,
        allow_no_value=True,
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(f"[{SECTION}]\n{text}")
    except configparser.Error as error:
        raise CouldNot(f"{file}: {error.message}") from error
    values: dict[str, str] = {}
    found = []
    for name, value in (item for section in parser.sections() for item in parser.items(section)):
        line = _line(text, name)
        if value is None or not re.fullmatch(r"\w+", name):
            raise CouldNot(f"{file}: line {line}: '{name[:60]}' is not of the form NAME=VALUE")
        values[name] = _expanded(value, values)
        found.append(SetVariable(name, values[name], line))
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise CouldNot(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CouldNot(f"{file}: it is not UTF-8 text: {error.reason}") from error


def _line(text: str, name: str) -> int:
    """Of the last line that sets a variable, which is the one that counts."""
    pattern = rf"\s*{re.escape(name)}\s*(=|\s#|$)"
    return max(n for n, line in enumerate(text.split("\n"), 1) if re.match(pattern, line))


def _expanded(text: str, values: Mapping[str, str]) -> str:
    """A text with the variables set so far; a \\ before one keeps it."""
    known = re.sub(r"(?<!\\)\$\{(\w+)\}", lambda found: values.get(found[1], found[0]), text)
    return re.sub(r"\\(\$\{\w+\})", r"\1", known)


def split(text: str) -> list[str]:
    """The lines, each with its end."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def place(
    lines: Sequence[str], wanted: Iterable[Variable], closing: Sequence[str] = ()
) -> list[str]:
    """The lines with all wanted variables set, and the closing comments at the end.

    A variable that is set already is changed in its place; another goes below its commented
    default (#name=), or to the end. Comments that are there already are not repeated.
    """
    placed = list(lines)
    if placed and not placed[-1].endswith("\n"):
        placed[-1] += "\n"
    before = list(placed)
    for variable in wanted:
        placed = _with(placed, variable)
    there = {line.strip() for line in placed}
    placed += _ended(comment for comment in closing if comment and comment not in there)
    return list(lines) if placed == before else placed


def _with(lines: list[str], variable: Variable) -> list[str]:
    index = _find(lines, rf"{variable.name}\s*=")
    if index is None:
        default = _find(lines, rf"#\s*{variable.name}\s*=")
        index = len(lines) if default is None else default + 1
        new = [*variable.comments, f"{variable.name}={variable.value}"]
        return [*lines[:index], *_ended(new), *lines[index:]]
    above = {line.strip() for line in takewhile(_is_comment, reversed(lines[:index]))}
    new = [comment for comment in variable.comments if comment not in above]
    return [*lines[:index], *_ended(new), _changed(lines[index], variable), *lines[index + 1 :]]


def _find(lines: Sequence[str], pattern: str) -> int | None:
    found = [number for number, line in enumerate(lines) if re.match(pattern, line)]
    return found[-1] if found else None


def _is_comment(line: str) -> bool:
    return not line.strip() or line.startswith("#")


def _changed(line: str, variable: Variable) -> str:
    """The line with another value; a comment behind it (a # after a space) stays."""
    return re.sub(
        r"(=[ \t]*)(.*?)((?:\s+#.*)?\s*)$",
        lambda found: f"{found[1]}{variable.value}{found[3]}",
        line,
        count=1,
        flags=re.DOTALL,
    )


def _ended(lines: Iterable[str]) -> list[str]:
    return [f"{line}\n" for line in lines]


def replace_file(file: Path, text: str) -> None:
    """Replace a file's text in one step; mode, owner, ACL and SELinux label stay. Raises OSError.

    What a symbolic link points to is replaced, not the link.
    """
    target = Path(os.path.realpath(file))
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    new = Path(name)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as opened:
            opened.write(text)
            opened.flush()
            _like(new, target)
            os.fsync(opened.fileno())
        os.replace(new, target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _like(new: Path, target: Path) -> None:
    if target.exists():
        found = target.stat()
        os.chown(new, found.st_uid, found.st_gid)
        shutil.copystat(target, new)
        os.utime(new)
    else:
        new.chmod(0o644)
