# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a guest's pins is ours: written into its <metadata>, and taken out of its XML again.

libvirt cannot remove <vcpupin>, <emulatorpin>, <iothreadpin> and <numatune> from a running guest's
XML. They travel with save images and migrations, where they would name CPUs and nodes of another
host and look like the owner's. So each of ours is repeated in the guest's metadata:

    <placement xmlns="urn:tuned-virt-plus:placement:1" vcpus="0=4 1=5" emulator="0-1"
        iothreads="1=0-1" numatune="restrictive=0"/>

What is in both, with the same values, is ours; once somebody else changes a pin it is theirs.
In a configuration without <iothreadids>, which libvirt writes out with the first <iothreadpin>, the
tag says iothreadids="none" besides.

libvirt's hook (hook.py) takes ours out of the XML of a guest that comes. This depends on expat
alone, refuses a DTD, and copies all else byte by byte, so that no namespace, comment or secret of
others is rewritten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from xml.parsers import expat

from tuned_virt.model.pins import MEMORY, Part, Pins, Target

NAMESPACE = "urn:tuned-virt-plus:placement:1"
"""As `guest.PLACEMENT_NAMESPACE`; repeated because the hook needs nothing else of that."""

KEY = "tuned-virt"
"""The prefix that libvirt writes for the namespace."""

SEPARATOR = "\x01"
"""No XML has this character; expat refuses a document that has it in a namespace."""

ROOT = "placement"
LISTED, NONE = "iothreadids", "none"
WHERE: Mapping[tuple[str, ...], tuple[Part, tuple[str, ...]]] = {
    ("domain", "cputune", "vcpupin"): (Part.VCPU, ("vcpu", "cpuset")),
    ("domain", "cputune", "emulatorpin"): (Part.EMULATOR, ("cpuset",)),
    ("domain", "cputune", "iothreadpin"): (Part.IOTHREAD, ("iothread", "cpuset")),
    ("domain", "numatune", "memory"): (Part.MEMORY, ("mode", "nodeset")),
}
"""Where in a domain our elements may be (libvirt's formatdomain), with the attributes we write."""

DEPTH = 3
"""Of all elements that matter here."""

TAG = re.compile(rb"""<[^"'>]*(?:"[^"]*"[^"'>]*|'[^']*'[^"'>]*)*>""")
OPENS, CLOSES = b"<metadata>", re.compile(rb"\s*</metadata>")
"""What is around our tag where nobody else has metadata."""

Place = tuple[int, int]
"""First byte, and the one after the last."""

LARGEST = 16 << 20
"""Bytes of XML that are looked at; libvirt itself takes messages of up to 32 MiB."""


class NotXML(ValueError):
    """Text that is not well-formed, brings a DTD, or is too long."""


@dataclass
class _Element:
    """One of WHERE, or ours in the metadata: its pin, and its place in the bytes."""

    pin: tuple[Target, str] | None
    start: int
    end: int = 0


@dataclass
class _Found:
    present: list[_Element] = field(default_factory=list)
    tags: list[_Element] = field(default_factory=list)
    tagged: dict[Target, str] = field(default_factory=dict)
    unlisted: bool = False

    @property
    def ours(self) -> list[_Element]:
        """Elements whose values are those of the tag."""
        return [one for one in self.present if one.pin and one.pin in self.tagged.items()]


class _TagReader:
    """Finds our elements. Names of a namespace come from expat as its URN, SEPARATOR and name."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._path: list[str] = []
        self._open: list[_Element | None] = []
        self.found = _Found()
        self._parser = parser = expat.ParserCreate(namespace_separator=SEPARATOR)
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end

    def read(self) -> _Found:
        """Raises NotXML."""
        if len(self._text) > LARGEST:
            raise NotXML(f"more than {LARGEST} bytes")
        try:
            self._parser.Parse(self._text, True)
        except expat.ExpatError as error:
            raise NotXML(str(error)) from error
        return self.found

    def _doctype(self, *_: object) -> None:
        raise NotXML("a DTD is not allowed")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name)
        path = tuple(self._path) if len(self._path) == DEPTH else ()
        element = None
        if path in WHERE:
            part, names = WHERE[path]
            values = [attributes.get(name, "") for name in names]
            element = _Element(_pin(part, values), self._parser.CurrentByteIndex)
            self.found.present.append(element)
        elif path == ("domain", "metadata", f"{NAMESPACE}{SEPARATOR}{ROOT}"):
            element = _Element(None, self._parser.CurrentByteIndex)
            self.found.tags.append(element)
            self.found.tagged.update(tagged(attributes))
            self.found.unlisted |= attributes.get(LISTED) == NONE
        self._open.append(element)

    def _end(self, _name: str) -> None:
        self._path.pop()
        element = self._open.pop()
        if element is not None:
            element.end = end_of(self._text, element.start, self._parser.CurrentByteIndex)


def end_of(text: bytes, start: int, index: int) -> int:
    """Where an element ends that starts there, by the index that expat has at its end."""
    first, last = TAG.match(text, start), TAG.match(text, index)
    whole = first if first and first[0].endswith(b"/>") else last
    return whole.end() if whole else start


def _pin(part: Part, values: Sequence[str]) -> tuple[Target, str] | None:
    """The pin that an element's attributes say; None for one without a value, or a number."""
    if part in (Part.VCPU, Part.IOTHREAD):
        number, value = values
        known = re.fullmatch(r"\d{1,6}", number, re.ASCII)
        return (Target(part, int(number)), value) if known and value else None
    return (Target(part), "=".join(values)) if values[-1] else None


def tagged(attributes: Mapping[str, str]) -> Pins:
    """What a tag's attributes say is ours."""
    found = []
    for name, part in (("vcpus", Part.VCPU), ("iothreads", Part.IOTHREAD)):
        for pair in attributes.get(name, "").split():
            number, _, cpus = pair.partition("=")
            found.append(_pin(part, (number, cpus)))
    found.append(_pin(Part.EMULATOR, [attributes.get("emulator", "")]))
    found.append(_pin(Part.MEMORY, [attributes.get("numatune", "")]))
    return Pins.of(filter(None, found))


def read(xml: str) -> tuple[Pins, Pins]:
    """The pins in a domain's XML that are ours, and all that are there. Raises NotXML."""
    found = _TagReader(xml.encode()).read()
    return _pins(found.ours), _pins(found.present)


def _pins(elements: list[_Element]) -> Pins:
    return Pins.of(one.pin for one in elements if one.pin)


def unlisted(xml: str) -> bool:
    """Whether our tag says that its owner has written no <iothreadids>. Raises NotXML."""
    return _TagReader(xml.encode()).read().unlisted


def strip(xml: bytes) -> bytes | None:
    """A domain's XML without what is ours; None where nothing is. Raises NotXML."""
    found = _TagReader(xml).read()
    if not found.tags:
        return None
    ours = [(one.start, one.end) for one in found.ours]
    return cut(xml, ours, [(one.start, one.end) for one in found.tags])


def cut(xml: bytes, ours: Iterable[Place], tags: Iterable[Place]) -> bytes:
    """Bytes without these places, the tags with a <metadata> that holds nothing else."""
    kept, at = [], 0
    for start, end in sorted([*ours, *(_with_around(xml, *tag) for tag in tags)]):
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


def text(pins: Pins, listed: bool = True) -> str:
    """The metadata element that says that these pins are ours; `listed`: not `unlisted`."""
    attributes = {
        "vcpus": " ".join(f"{number}={cpus}" for number, cpus in pins.vcpus.items()),
        "emulator": pins.emulator,
        "iothreads": " ".join(f"{number}={cpus}" for number, cpus in pins.iothreads.items()),
        "numatune": pins.get(MEMORY, ""),
        LISTED: "" if listed else NONE,
    }
    told = " ".join(f"{name}={quoted(value)}" for name, value in attributes.items() if value)
    return f"<{ROOT} {told}/>"


def quoted(value: str) -> str:
    """As xml.sax.saxutils.quoteattr, which imports urllib and ssl: 5 MiB for a daemon."""
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        value = value.replace(sign, entity)
    return f'"{value}"'
