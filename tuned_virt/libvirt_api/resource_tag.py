# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a guest's limits and weights is ours: in its <metadata>, and taken out of its XML again.

As pins (placement_tag.py), a running guest's limits and weights travel with save images and
migrations, where they would look like the owner's, and would stay for ever. So each of ours is
repeated in the guest's metadata, in an element of the plugin that has set it:

    <limits xmlns="urn:tuned-virt-plus:limits:1" soft_limit="65536" cpu_shares="50"/>
    <weights xmlns="urn:tuned-virt-plus:weights:1" weight="300">
      <device path="/dev/sda" weight="400"/>
    </weights>

What is in both, with the same value, is ours. What the guest's XML had before is the owner's and is
never tagged. libvirt's hook (hook.py) takes ours out of the XML of a guest that comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from xml.parsers import expat

from tuned_virt.libvirt_api.placement_tag import LARGEST, SEPARATOR, NotXML, cut, end_of, quoted


class ResourceTag(str, Enum):
    """The element's name; its namespace is `namespace`."""

    LIMITS = "limits"
    WEIGHTS = "weights"

    @property
    def namespace(self) -> str:
        """Its URN."""
        return f"urn:tuned-virt-plus:{self.value}:1"

    @property
    def key(self) -> str:
        """The prefix that libvirt writes for it: of all in a guest no two may be the same."""
        return f"tuned-virt-{self.value}"


DEVICE = "device "
"""Before a device's path, in the name of its weight."""

Settings = Mapping[str, int]
"""Values by libvirt's name of a limit or weight; a device's weight by DEVICE and its path."""

TEXTS = {
    ("domain", "memtune", "hard_limit"): "hard_limit",
    ("domain", "memtune", "soft_limit"): "soft_limit",
    ("domain", "memtune", "swap_hard_limit"): "swap_hard_limit",
    ("domain", "cputune", "shares"): "cpu_shares",
    ("domain", "blkiotune", "weight"): "weight",
    ("domain", "blkiotune", "device", "path"): "path",
    ("domain", "blkiotune", "device", "weight"): DEVICE,
}
"""Where in a domain libvirt writes them (formatdomain); limits in KiB."""

ATTRIBUTES = {
    ResourceTag.LIMITS: ("hard_limit", "soft_limit", "swap_hard_limit", "cpu_shares"),
    ResourceTag.WEIGHTS: ("weight",),
}

TAGS: Mapping[tuple[str, ...], ResourceTag] = {
    ("domain", "metadata", f"{tag.namespace}{SEPARATOR}{tag.value}"): tag for tag in ResourceTag
}
DEVICE_OF_TAG = (
    *("domain", "metadata", f"{ResourceTag.WEIGHTS.namespace}{SEPARATOR}weights"),
    f"{ResourceTag.WEIGHTS.namespace}{SEPARATOR}device",
)
DEEPEST = 4
"""Of all elements that matter here."""

LONGEST = 4096
"""Characters of an element's text that are looked at: a path."""


@dataclass
class _ResourceElement:
    """One of TEXTS or TAGS, and its place in the bytes."""

    name: str
    start: int
    end: int = 0
    text: str = ""
    plain: bool = True


@dataclass
class _FoundResources:
    present: dict[str, _ResourceElement] = field(default_factory=dict)
    tags: list[_ResourceElement] = field(default_factory=list)
    tagged: dict[str, int] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, int]:
        """Values of what is there; one that is no number is -1, which nobody tags."""
        return {name: _number(one.text) for name, one in self.present.items()}

    @property
    def ours(self) -> dict[str, int]:
        """What is there as the tag says."""
        settings = self.settings.items()
        return {name: value for name, value in settings if self.tagged.get(name) == value}


class _ResourceReader:
    """Finds them; names of a namespace come from expat as its URN, SEPARATOR and name."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._path: list[str] = []
        self._open: list[_ResourceElement | None] = []
        self._device: dict[str, _ResourceElement] = {}
        self.found = _FoundResources()
        self._parser = parser = expat.ParserCreate(namespace_separator=SEPARATOR)
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters

    def read(self) -> _FoundResources:
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
        if self._open and self._open[-1] is not None:
            self._open[-1].text = ""  # libvirt writes none of them with elements inside
            self._open[-1].plain = False
        path = tuple(self._path) if len(self._path) <= DEEPEST else ()
        element = None
        if path in TEXTS:
            element = _ResourceElement(TEXTS[path], self._parser.CurrentByteIndex)
        elif path in TAGS:
            element = _ResourceElement(TAGS[path].value, self._parser.CurrentByteIndex)
            self.found.tagged.update(_numbers(attributes, ATTRIBUTES[TAGS[path]]))
        elif path == DEVICE_OF_TAG and "path" in attributes:
            weight = _numbers(attributes, ("weight",)).get("weight")
            if weight is not None:
                self.found.tagged[DEVICE + attributes["path"]] = weight
        self._open.append(element)

    def _characters(self, text: str) -> None:
        element = self._open[-1] if self._open else None
        if element is not None and element.plain and len(element.text) < LONGEST:
            element.text += text

    def _end(self, _name: str) -> None:
        path = tuple(self._path) if len(self._path) <= DEEPEST else ()
        self._path.pop()
        element = self._open.pop()
        if element is not None:
            element.end = end_of(self._text, element.start, self._parser.CurrentByteIndex)
            if path in TAGS:
                self.found.tags.append(element)
            elif path[-2] == "device":
                self._device[element.name] = element
            else:
                self.found.present[element.name] = element
        elif path == ("domain", "blkiotune", "device"):
            at, weight = self._device.pop("path", None), self._device.pop(DEVICE, None)
            if at and weight:
                self.found.present[DEVICE + at.text.strip()] = weight


def _numbers(attributes: Mapping[str, str], names: tuple[str, ...]) -> dict[str, int]:
    found = {name: _number(attributes.get(name, "")) for name in names}
    return {name: value for name, value in found.items() if value >= 0}


def _number(text: str) -> int:
    """A number of libvirt's, -1 for other text."""
    stripped = text.strip()
    return int(stripped) if stripped.isascii() and stripped.isdigit() and len(stripped) < 20 else -1


def read(xml: str) -> tuple[Settings, Settings]:
    """What in a domain's XML is ours, and all that is there. Raises NotXML."""
    found = _ResourceReader(xml.encode()).read()
    return found.ours, found.settings


def after(xml: str, tag: ResourceTag, changes: Settings) -> Settings:
    """What a tag has to say while these values are set: none of what the owner has there already.

    Raises NotXML.
    """
    ours, present = read(xml)
    mine = {name: value for name, value in ours.items() if _of(tag, name)}
    mine.update(
        (name, value) for name, value in changes.items() if name in ours or name not in present
    )
    return mine


def tagged(xml: str, tag: ResourceTag) -> Settings:
    """What a tag says now. Raises NotXML."""
    found = _ResourceReader(xml.encode()).read()
    return {name: value for name, value in found.tagged.items() if _of(tag, name)}


def _of(tag: ResourceTag, name: str) -> bool:
    if name.startswith(DEVICE):
        return tag is ResourceTag.WEIGHTS
    return name in ATTRIBUTES[tag]


def text(tag: ResourceTag, settings: Settings) -> str | None:
    """The element; None where it would say nothing."""
    if not settings:
        return None
    attributes = "".join(
        f" {name}={quoted(str(value))}"
        for name, value in settings.items()
        if not name.startswith(DEVICE)
    )
    devices = "".join(
        f"<device path={quoted(name[len(DEVICE) :])} weight={quoted(str(value))}/>"
        for name, value in settings.items()
        if name.startswith(DEVICE)
    )
    return f"<{tag.value}{attributes}>{devices}</{tag.value}>"


def strip(xml: bytes, tag: ResourceTag) -> bytes | None:
    """A domain's XML without what a tag says is ours; None where it is not there. Raises NotXML."""
    found = _ResourceReader(xml).read()
    tags = [(one.start, one.end) for one in found.tags if one.name == tag.value]
    if not tags:
        return None
    ours = [found.present[name] for name in found.ours if _of(tag, name)]
    return cut(xml, [(one.start, one.end) for one in ours], tags)
