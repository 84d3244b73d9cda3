# SPDX-License-Identifier: GPL-2.0-or-later
"""A profile's settings file, written line by line, all else kept."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path

from tuned_virt.frozen_dataclasses import dataclass


@dataclass(frozen=True)
class Variable:
    """A variable to set, with the comments (each with its #, or empty) that go above it."""

    name: str
    value: str
    comments: tuple[str, ...] = ()


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
    index = _find(lines, rf"\s*{variable.name}\s*=")
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
