# SPDX-License-Identifier: GPL-2.0-or-later
"""What a shell's text writes into files, as far as its words tell: `echo none > FILE` and its kind.

Nothing is run. Variables that the text sets itself and loops over words are followed; all else that
only a shell would know makes a path a pattern, and what is written there a guess.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from tuned_virt.frozen_dataclasses import dataclass

WORD = r"""(?:"[^"\n]*"|'[^'\n]*'|[^\s;|&<>()"'])+"""
ECHO = re.compile(
    rf"""\b(?:echo|printf)\s+(?:-\w+\s+)*(?:["']?%s(?:\\n)?["']?\s+)?(?P<value>{WORD})\s*"""
    rf"(?:>>?\|?\s*(?P<path>{WORD})|\|\s*(?:sudo\s+)?(?:\S*/)?tee\s+(?:-\w+\s+)*"
    rf"(?P<paths>{WORD}(?:[ \t]+{WORD})*))"
)
TEE = re.compile(rf"\btee\s+(?:-\w+\s+)*(?P<path>{WORD})\s*(?:>\s*\S+\s*)?<<<\s*(?P<value>{WORD})")
ASSIGNED = re.compile(rf"(?:^|[\s;'\"])(\w+)=({WORD})")
LOOP = re.compile(r"\bfor\s+(\w+)\s+in\s+([^;\n]+)")
VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)[^}]*\}|[*@])")
COMMAND = re.compile(r"\$\([^()\n]*\)|`[^`\n]*`")
"""What another command prints, which is not known: as $*, the arguments."""

CONDITIONAL = re.compile(r"\b(?:if|case|while|until)\b|&&|\|\||\[ |`|\$\(")
DEPTH = 4
"""How many variables of variables are followed."""

VARIABLES = 8
"""Most in one word; more are not followed."""

MEANINGS = 1000
"""Most that one word may stand for."""


@dataclass(frozen=True)
class Write:
    """A value that is written to a path, on a line of the text.

    surely  the path is no guess, and no condition decides whether it is written
    """

    line: int
    path: str
    value: str
    surely: bool


def writes(text: str, file: str) -> Iterator[Write]:
    """What is written into files whose path ends with `file`, in the text's order."""
    plain = text.replace('\\"', '"').replace("\\$", "$").replace("\\\n", " \n")
    if file not in plain:
        return
    surely = not CONDITIONAL.search(_without_comments(plain))
    for _ in range(DEPTH):
        plain = COMMAND.sub("$*", plain)
    words = _Words(plain)
    found = [*ECHO.finditer(plain), *TEE.finditer(plain)]
    for match in sorted(found, key=lambda one: one.start()):
        if _in_comment(plain, match.start()):
            continue
        targets = match["path"] or match.groupdict().get("paths") or ""
        line = plain.count("\n", 0, match.start()) + 1
        for value, _ in words.meanings(match["value"]):
            for target in re.findall(WORD, targets):
                for path, known in words.meanings(target):
                    if path.endswith(file) and re.fullmatch(r"[\w-]+", value):
                        yield Write(line, path, value, surely and known)


class _Words:
    """The variables that a text sets, with the words that each may stand for."""

    def __init__(self, text: str) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in ASSIGNED.findall(text):
            self._values.setdefault(name, []).append(_unquoted(value))
        for name, words in LOOP.findall(text):
            self._values.setdefault(name, []).extend(words.split())

    def meanings(self, word: str) -> list[tuple[str, bool]]:
        """What a word may be, and whether that is known; what is not known matches anything."""
        return list(itertools.islice(self._expand(_unquoted(word), DEPTH), MEANINGS))

    def _expand(self, text: str, depth: int) -> Iterator[tuple[str, bool]]:
        found = VARIABLE.search(text)
        if not found:
            yield text, True
            return
        if len(VARIABLE.findall(text)) > VARIABLES:
            yield VARIABLE.sub("*", text), False
            return
        values = self._values.get(found[1] or found[2], []) if depth else []
        for value in values:
            for word in value.split() or [""]:
                yield from self._expand(text.replace(found[0], word, 1), depth - 1)
        if not values:
            for rest, _ in self._expand(text.replace(found[0], "*", 1), depth):
                yield rest, False


def _unquoted(word: str) -> str:
    return word.replace('"', "").replace("'", "")


def _without_comments(text: str) -> str:
    return re.sub(r"(?m)^\s*#.*$", "", text)


def _in_comment(text: str, place: int) -> bool:
    return text[text.rfind("\n", 0, place) + 1 : place].lstrip().startswith("#")
