# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON from others, part by part: each knows where it is, so that what is wrong can be named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

MOST = (1 << 63) - 1
"""The largest number: no machine has more of anything, in KiB or by number."""


class JsonPartError(ValueError):
    """A part that is absent or of another kind; the text says where and what would be valid."""


@dataclass(frozen=True)
class JsonPart:
    """A value and where it is ("host.nodes[0].memory")."""

    value: Any
    where: str = ""

    def wrong(self, expected: str) -> NoReturn:
        """Raises PartError."""
        shown = repr(self.value)
        shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
        raise JsonPartError(f"{self.where or 'the file'} is {shown}, expected {expected}")

    def __getitem__(self, key: str) -> JsonPart:
        """A member of an object."""
        where = f"{self.where}.{key}" if self.where else key
        if not isinstance(self.value, dict):
            self.wrong("an object")
        if key not in self.value:
            raise JsonPartError(f"{where} is missing")
        return JsonPart(self.value[key], where)

    def each(self) -> list[JsonPart]:
        """A list's members."""
        if not isinstance(self.value, list):
            self.wrong("a list")
        return [JsonPart(one, f"{self.where}[{at}]") for at, one in enumerate(self.value)]

    def numbered(self) -> dict[int, JsonPart]:
        """An object's members where their names are numbers."""
        if not isinstance(self.value, dict):
            self.wrong("an object")
        return {JsonPart(_number(key), self[key].where).number(): self[key] for key in self.value}

    def number(self, least: int = 0) -> int:
        """A whole number."""
        value = self.value
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST:
            self.wrong(f"a whole number from {least} to {MOST}")
        return value

    def text(self) -> str:
        """Text."""
        if not isinstance(self.value, str):
            self.wrong("text")
        return self.value

    def numbers(self) -> frozenset[int]:
        """A list of numbers."""
        return frozenset(one.number() for one in self.each())

    def amounts(self) -> dict[int, int]:
        """An object of numbers by number."""
        return {key: one.number() for key, one in self.numbered().items()}

    def named(self) -> dict[str, int]:
        """An object of numbers by name."""
        if not isinstance(self.value, dict):
            self.wrong("an object")
        return {key: self[key].number() for key in self.value}

    def texts(self) -> dict[int, str]:
        """An object of texts by number."""
        return {key: one.text() for key, one in self.numbered().items()}


def _number(key: str) -> int | str:
    """A name as a number; as it is where it is none, for `number` to say so."""
    return int(key) if key.isascii() and key.isdigit() and len(key) < 20 else key
