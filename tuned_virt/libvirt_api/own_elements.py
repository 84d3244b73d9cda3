# SPDX-License-Identifier: GPL-2.0-or-later
"""Elements of ours in a domain's XML, and their places in its bytes.

They are cut out and all else is copied byte by byte, so that no namespace, comment or secret of
others is rewritten. This depends on expat alone, as libvirt's hook does, and refuses a DTD.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar
from xml.parsers import expat

SEPARATOR = "\x01"
"""No XML has this character; expat refuses a document that has it in a namespace."""

TAG = re.compile(rb"""<[^"'>]*(?:"[^"]*"[^"'>]*|'[^']*'[^"'>]*)*>""")
OPENS, CLOSES = b"<metadata>", re.compile(rb"\s*</metadata>")
"""What is around our tag where nobody else has metadata."""

Place = tuple[int, int]
"""First byte, and the one after the last."""

Path = tuple[str, ...]
"""Names of an element and of those around it, from the outermost; () below those that matter."""

LARGEST = 16 << 20
"""Bytes of XML that are looked at; libvirt itself takes messages of up to 32 MiB."""


class NotXML(ValueError):
    """Text that is not well-formed, brings a DTD, or is too long."""


@dataclass
class OwnElement:
    """An element that may be ours."""

    start: int
    end: int

    @property
    def place(self) -> Place:
        """Where it is in the bytes."""
        return self.start, self.end


E = TypeVar("E", bound=OwnElement)


class ElementReader(ABC, Generic[E]):
    """Finds elements. Names of a namespace come from expat as its URN, SEPARATOR and name."""

    DEEPEST: ClassVar[int]
    """Of all elements that matter, how many are around one, itself included."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._path: list[str] = []
        self._open: list[E | None] = []
        self._parser = parser = expat.ParserCreate(namespace_separator=SEPARATOR)
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end

    @abstractmethod
    def opened(self, path: Path, attributes: Mapping[str, str], start: int) -> E | None:
        """An element that begins there, None for one that does not matter."""

    def closed(self, path: Path, element: E | None) -> None:
        """What `opened` has given ends, its `end` is known."""

    def parse(self) -> None:
        """Call both for all elements. Raises NotXML."""
        if len(self._text) > LARGEST:
            raise NotXML(f"more than {LARGEST} bytes")
        try:
            self._parser.Parse(self._text, True)
        except expat.ExpatError as error:
            raise NotXML(str(error)) from error

    def _doctype(self, *_: object) -> None:
        raise NotXML("a DTD is not allowed")

    def _where(self) -> Path:
        return tuple(self._path) if len(self._path) <= self.DEEPEST else ()

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name)
        self._open.append(self.opened(self._where(), attributes, self._parser.CurrentByteIndex))

    def _end(self, _name: str) -> None:
        path = self._where()
        self._path.pop()
        element = self._open.pop()
        if element is not None:
            element.end = end_of(self._text, element.start, self._parser.CurrentByteIndex)
        self.closed(path, element)


def end_of(text: bytes, start: int, index: int) -> int:
    """Where an element ends that starts there, by the index that expat has at its end."""
    first, last = TAG.match(text, start), TAG.match(text, index)
    whole = first if first and first[0].endswith(b"/>") else last
    return whole.end() if whole else start


def cut(xml: bytes, ours: Iterable[OwnElement], tags: Iterable[OwnElement]) -> bytes:
    """Bytes without these elements, the tags with a <metadata> that holds nothing else."""
    kept, at = [], 0
    gone = [*(one.place for one in ours), *(_with_around(xml, *one.place) for one in tags)]
    for start, end in sorted(gone):
        kept.append(xml[at:start])
        at = end
    return b"".join([*kept, xml[at:]])


def _with_around(xml: bytes, first: int, last: int) -> Place:
    """A tag's place; with <metadata> around it where that holds nothing else."""
    start, after = first, CLOSES.match(xml, last)
    while after and xml[start - 1 : start].isspace():
        start -= 1
    if after and xml.endswith(OPENS, 0, start):
        return start - len(OPENS), after.end()
    return first, last


def quoted(value: str) -> str:
    """As xml.sax.saxutils.quoteattr, which imports urllib and ssl: 5 MiB for a daemon."""
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        value = value.replace(sign, entity)
    return f'"{value}"'
