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

from tuned_virt.libvirt_api.own_elements import (
    SEPARATOR,
    ElementReader,
    OwnElement,
    Path,
    cut,
    quoted,
)


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


UNLIMITED = (1 << 53) - 1
"""KiB from which libvirt means no limit (VIR_DOMAIN_MEMORY_PARAM_UNLIMITED), and has no element."""

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
DEVICE_WEIGHT = ("domain", "blkiotune", "device")
DEVICE_OF_TAG = (
    *("domain", "metadata", f"{ResourceTag.WEIGHTS.namespace}{SEPARATOR}weights"),
    f"{ResourceTag.WEIGHTS.namespace}{SEPARATOR}device",
)
LONGEST = 4096
"""Characters of an element's text that are looked at: a path."""


@dataclass
class _ResourceElement(OwnElement):
    """One of TEXTS or TAGS."""

    name: str
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


class _ResourceReader(ElementReader[_ResourceElement]):
    """Finds them."""

    DEEPEST = 4

    def __init__(self, text: bytes) -> None:
        super().__init__(text)
        self._device: dict[str, _ResourceElement] = {}
        self.found = _FoundResources()
        self._parser.CharacterDataHandler = self._characters

    def read(self) -> _FoundResources:
        """Raises NotXML."""
        self.parse()
        return self.found

    def opened(
        self, path: Path, attributes: Mapping[str, str], start: int
    ) -> _ResourceElement | None:
        """See `ElementReader`."""
        if self._open and self._open[-1] is not None:
            self._open[-1].text = ""  # libvirt writes none of them with elements inside
            self._open[-1].plain = False
        if path in TEXTS:
            return _ResourceElement(start, start, TEXTS[path])
        if path in TAGS:
            self.found.tagged.update(_numbers(attributes, ATTRIBUTES[TAGS[path]]))
            return _ResourceElement(start, start, TAGS[path].value)
        if path == DEVICE_OF_TAG and "path" in attributes:
            weight = _numbers(attributes, ("weight",)).get("weight")
            if weight is not None:
                self.found.tagged[DEVICE + attributes["path"]] = weight
        return None

    def _characters(self, text: str) -> None:
        element = self._open[-1] if self._open else None
        if element is not None and element.plain and len(element.text) < LONGEST:
            element.text += text

    def closed(self, path: Path, element: _ResourceElement | None) -> None:
        """See `ElementReader`."""
        if element is None:
            if path == DEVICE_WEIGHT:
                at, weight = self._device.pop("path", None), self._device.pop(DEVICE, None)
                if at and weight:
                    self.found.present[DEVICE + at.text.strip()] = weight
        elif path in TAGS:
            self.found.tags.append(element)
        elif path[:-1] == DEVICE_WEIGHT:
            self._device[element.name] = element
        else:
            self.found.present[element.name] = element


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


def limits(settings: Settings) -> Settings:
    """Those that are limits, and do limit; a weight of CPU time is one whatever its text."""
    found = {name: settings[name] for name in ATTRIBUTES[ResourceTag.LIMITS] if name in settings}
    return {
        name: value
        for name, value in found.items()
        if name == "cpu_shares" or 0 <= value < UNLIMITED
    }


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
    tags = [one for one in found.tags if one.name == tag.value]
    if not tags:
        return None
    return cut(xml, [found.present[name] for name in found.ours if _of(tag, name)], tags)
