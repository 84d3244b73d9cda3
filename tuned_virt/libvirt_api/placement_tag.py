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

libvirt's hook (hook.py) takes ours out of the XML of a guest that comes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tuned_virt.libvirt_api.own_elements import (
    SEPARATOR,
    ElementReader,
    OwnElement,
    Path,
    cut,
    quoted,
)
from tuned_virt.model.pins import MEMORY, Part, Pins, Target

NAMESPACE = "urn:tuned-virt-plus:placement:1"
"""As `guest.PLACEMENT_NAMESPACE`; repeated because the hook needs nothing else of that."""

KEY = "tuned-virt"
"""The prefix that libvirt writes for the namespace."""

ROOT = "placement"
LISTED, NONE = "iothreadids", "none"
WHERE: Mapping[tuple[str, ...], tuple[Part, tuple[str, ...]]] = {
    ("domain", "cputune", "vcpupin"): (Part.VCPU, ("vcpu", "cpuset")),
    ("domain", "cputune", "emulatorpin"): (Part.EMULATOR, ("cpuset",)),
    ("domain", "cputune", "iothreadpin"): (Part.IOTHREAD, ("iothread", "cpuset")),
    ("domain", "numatune", "memory"): (Part.MEMORY, ("mode", "nodeset")),
}
"""Where in a domain our elements may be (libvirt's formatdomain), with the attributes we write."""

TAG = ("domain", "metadata", f"{NAMESPACE}{SEPARATOR}{ROOT}")


@dataclass
class _Element(OwnElement):
    """One of WHERE with its pin, or ours in the metadata."""

    pin: tuple[Target, str] | None = None


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


class _TagReader(ElementReader[_Element]):
    """Finds our elements."""

    DEEPEST = 3

    def __init__(self, text: bytes) -> None:
        super().__init__(text)
        self.found = _Found()

    def read(self) -> _Found:
        """Raises NotXML."""
        self.parse()
        return self.found

    def opened(self, path: Path, attributes: Mapping[str, str], start: int) -> _Element | None:
        """See `ElementReader`."""
        if path in WHERE:
            part, names = WHERE[path]
            values = [attributes.get(name, "") for name in names]
            element = _Element(start, start, _pin(part, values))
            self.found.present.append(element)
            return element
        if path != TAG:
            return None
        element = _Element(start, start)
        self.found.tags.append(element)
        self.found.tagged.update(tagged(attributes))
        self.found.unlisted |= attributes.get(LISTED) == NONE
        return element


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
    return cut(xml, found.ours, found.tags)


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
