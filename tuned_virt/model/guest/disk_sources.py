# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a guest's disks come from, backing chains included, as libvirt's XML says it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from xml.etree.ElementTree import Element

from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.model import xml as safexml
from tuned_virt.model.xml import XmlError

RAW = "raw"
"""The format whose whole content is the guest's: nothing in it is believed."""

VHOST_USER = "vhost-user: another program has it"

NETWORK_POOLS = frozenset({"rbd", "gluster", "sheepdog", "iscsi-direct"})
"""Types of storage pools whose volumes have no path on this machine (libvirt, storage.html)."""


@dataclass(frozen=True)
class DiskSource:
    """Where one image comes from: of these, one is known.

    path     on this machine
    pool     a storage pool, of which it is `volume`
    network  the protocol by which QEMU reads it from elsewhere: rbd, nbd, iscsi
    other    what else it is, in words
    """

    path: str = ""
    pool: str = ""
    volume: str = ""
    network: str = ""
    other: str = ""


@dataclass(frozen=True)
class GuestDisk:
    """One disk of a guest.

    source    what it comes from; None for what is not on disks, as a PCI function is
    format    of that, as the XML has it; "" where it does not say
    chain     the images below it
    complete  whether the XML says where the chain ends, as libvirt's does while the guest runs
    copies    what it is being copied to
    """

    source: DiskSource | None
    format: str = ""
    chain: tuple[DiskSource, ...] = ()
    complete: bool = False
    copies: tuple[DiskSource, ...] = ()


@dataclass(frozen=True)
class VolumeFormat:
    """What libvirt says of a volume: its format, and what it is an overlay of.

    backing is a path, or with ":" in it another place; "" where there is none.
    """

    format: str
    backing: str = ""
    backing_format: str = ""


def read_disks(xml: str) -> list[GuestDisk]:
    """The disks of a guest's XML. Raises XmlError."""
    return safexml.read(xml, "domain", _disks, XmlError)


def _disks(root: Element) -> list[GuestDisk]:
    return [_disk(element) for element in root.iterfind("devices/disk")]


def _disk(disk: Element) -> GuestDisk:
    driver = disk.find("driver")
    source = disk.find("source")
    layers = list(_layers(disk))
    below = [one for layer in layers for one in layer.iterfind("source")]
    stores = [one for top in disk.iterfind("source") for one in top.iterfind("dataStore/source")]
    return GuestDisk(
        None if source is None else _source(source, disk.get("type", "")),
        "" if driver is None else driver.get("type", ""),
        tuple(_sources([*below, *stores])),
        bool(layers) and len(layers[-1]) == 0,
        tuple(_sources(disk.iterfind("mirror/source"))),
    )


def _layers(disk: Element) -> Iterator[Element]:
    """The <backingStore> elements, each within the one before; the last is empty at a known end."""
    layer = disk.find("backingStore")
    while layer is not None:
        yield layer
        layer = layer.find("backingStore")


def _sources(elements: Iterable[Element]) -> Iterator[DiskSource]:
    for element in elements:
        source = _source(element, "")
        if source is not None:
            yield source


def _source(element: Element, kind: str) -> DiskSource | None:
    if kind == "vhostuser":
        return DiskSource(other=VHOST_USER)
    if element.get("protocol"):
        return DiskSource(network=element.get("protocol", ""))
    path = element.get("file") or element.get("dev") or element.get("dir") or ""
    if os.path.isabs(path):
        return DiskSource(path)
    pool, volume = element.get("pool", ""), element.get("volume", "")
    return DiskSource(pool=pool, volume=volume) if pool and volume else None


def read_volume(xml: str) -> VolumeFormat:
    """What libvirt says of a volume. Raises XmlError."""
    return safexml.read(xml, "volume", _volume, XmlError)


def _volume(root: Element) -> VolumeFormat:
    return VolumeFormat(
        _attribute(root, "target/format", "type"),
        root.findtext("backingStore/path", ""),
        _attribute(root, "backingStore/format", "type"),
    )


def read_pool_type(xml: str) -> str:
    """A storage pool's type. Raises XmlError."""
    return safexml.read(xml, "pool", lambda root: root.get("type", ""), XmlError)


def _attribute(root: Element, path: str, name: str) -> str:
    found = root.find(path)
    return "" if found is None else found.get(name, "")


def place(text: str) -> DiskSource | None:
    """Where a volume's backing image is: a path, or another place as QEMU writes it."""
    if os.path.isabs(text):
        return DiskSource(text)
    protocol = re.match(r"(?:json:.*\"driver\": ?\")?([a-z]+)", text) if ":" in text else None
    return DiskSource(network=protocol[1]) if protocol and protocol[1] != "json" else None
