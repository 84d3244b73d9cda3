# SPDX-License-Identifier: GPL-2.0-or-later
"""Which line of which profile's file says something: the one that TuneD's merge lets win."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tuned_virt.frozen_dataclasses import dataclass

HEADER = re.compile(r"\[([^\]]+)\]\s*([#;].*)?$")
OPTION = re.compile(r"([^\s=#;\[][^=]*?)\s*=")


@dataclass(frozen=True)
class ProfileLine:
    """A line of a file; text without white space around it."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def find(files: Iterable[tuple[str, str]], section: str, option: str = "") -> ProfileLine | None:
    """The last line that sets an option in a section; the section's header where none does.

    `files` are paths and texts in the order in which TuneD merges them: the later wins.
    """
    header = last = None
    for file, text in files:
        for number, within, name, line in _lines(text):
            if within == section:
                found = ProfileLine(file, number, line)
                header = found if not name else header
                last = found if name and name == option else last
    return last or header


def _lines(text: str) -> Iterator[tuple[int, str, str, str]]:
    """Number, section, option ("" for a header) and text of the lines that say something."""
    section = ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        header = HEADER.match(line)
        if header:
            section = header[1]
            yield number, section, "", line
        elif not raw[:1].isspace() and (option := OPTION.match(line)):
            yield number, section, option[1], line
