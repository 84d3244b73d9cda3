# SPDX-License-Identifier: GPL-2.0-or-later
"""The documentation's commands: lines of code blocks that start with a program's name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

PROGRAMS = (
    "tuned-virt",
    "tuned-adm",
    "systemctl",
    "dnf",
    "apt-get",
    "make",
    "sudo",
    "pip",
    "scripts/",
    "build/venv/bin/",
    "/usr/bin/python3",
)


@dataclass(frozen=True)
class Command:
    """A command line, as a reader would type it, and where it is written."""

    file: Path
    text: str

    @property
    def program(self) -> str:
        """Its first word."""
        return self.text.split()[0]

    def __str__(self) -> str:
        return f"{self.file.name}: {self.text}"


def commands() -> list[Command]:
    """Every command of every document, each once a document."""
    return list(dict.fromkeys(found for file in DOCUMENTS for found in _of(file)))


def _of(file: Path) -> Iterator[Command]:
    """Of code blocks, but for a synopsis; in running text only complete `tuned-virt …`."""
    text = re.sub(r"^## SYNOPSIS\n.*?(?=^## |\Z)", "", file.read_text(), flags=re.DOTALL | re.M)
    spans = re.findall(r"`(tuned-virt [a-z]+ [^`…]+)`", text.replace("\n", " "))
    for line in [*re.findall(r"^    +(\S.*)$", text, re.MULTILINE), *spans]:
        for part in re.split(r" && |; ", line):
            command = re.split(r"\s{2,}#", part)[0].strip()
            if command.startswith(PROGRAMS):
                yield Command(file, command)
