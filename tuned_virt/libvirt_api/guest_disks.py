# SPDX-License-Identifier: GPL-2.0-or-later
"""The disks of all guests, defined or running, as libvirt's XML names them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from xml.etree.ElementTree import Element

from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.connection import OFF, Connection, Domain
from tuned_virt.libvirt_api.errors import LibvirtError
from tuned_virt.libvirt_api.follower import GuestReader
from tuned_virt.libvirt_api.worker import GuestsView
from tuned_virt.model import xml as safexml
from tuned_virt.model.guest import printable
from tuned_virt.model.xml import XmlError


@dataclass(frozen=True)
class DiskSource:
    """Where a disk comes from: a path on this machine, or a volume of a storage pool."""

    path: str = ""
    pool: str = ""
    volume: str = ""


@dataclass(frozen=True)
class GuestDisks:
    """A guest and the paths, on this machine, of what its disks are made of.

    `unresolved` counts volumes whose pool does not tell their path now: it may be inactive. Paths
    and names are of others.
    """

    uuid: str
    name: str
    paths: tuple[str, ...]
    unresolved: int = 0


def sources(xml: str) -> list[DiskSource]:
    """The disks of a guest's XML, backing chains included, that lie on this machine.

    Raises XmlError.
    """
    return safexml.read(xml, "domain", _sources, XmlError)


def _sources(root: Element) -> list[DiskSource]:
    return [
        source
        for disk in root.iterfind("devices/disk")
        for element in disk.iter("source")
        if (source := _source(element)) is not None
    ]


def _source(element: Element) -> DiskSource | None:
    path = element.get("file") or element.get("dev") or element.get("dir") or ""
    if os.path.isabs(path):
        return DiskSource(path)
    pool, volume = element.get("pool", ""), element.get("volume", "")
    return DiskSource(pool=pool, volume=volume) if pool and volume else None


class GuestDiskReader(GuestReader[GuestDisks]):
    """Reads what a guest's disks lie on: definitions, starts, hot-plugged disks, pools."""

    defined = True

    def outdated(self, view: GuestsView, known: GuestDisks, domain: Domain) -> bool:
        """See `GuestReader`. A volume that no pool told of may have a path now."""
        unfinished = view.changes.everything and known.unresolved > 0
        return unfinished or super().outdated(view, known, domain)

    def read(self, connection: Connection, domain: Domain, old: GuestDisks | None) -> GuestDisks:
        """See `GuestReader`. The disks that run, and those of the next start."""
        texts = [domain.xml]
        with connection.asking():
            if domain.id != OFF and domain.domain.isPersistent():
                texts.append(domain.domain.XMLDesc(binding.libvirt().VIR_DOMAIN_XML_INACTIVE))
        try:
            found = [source for text in texts for source in sources(text)]
        except XmlError:
            return GuestDisks(domain.uuid, domain.name, ())
        paths = [_path(connection, source) for source in found]
        known = tuple(sorted({path for path in paths if path}))
        return GuestDisks(domain.uuid, domain.name, known, paths.count(""))

    def differences(
        self, before: Mapping[str, GuestDisks], after: Mapping[str, GuestDisks]
    ) -> Iterator[str]:
        """See `GuestReader`. A defined guest's start or stop is nothing."""
        for uuid in before.keys() - after.keys():
            yield f"guest {printable(before[uuid].name)} is gone"
        for uuid, guest in after.items():
            if uuid not in before:
                yield f"guest {printable(guest.name)} is there"
            elif before[uuid].paths != guest.paths:
                yield f"guest {printable(guest.name)} has other disks"


def _path(connection: Connection, source: DiskSource) -> str:
    """Where a source lies; "" for a volume that its pool does not tell of now."""
    if source.path:
        return source.path
    connection.follow_pools()
    try:
        with connection.asking():
            pool = connection.handle.storagePoolLookupByName(source.pool)
            path: str = pool.storageVolLookupByName(source.volume).path()
    except LibvirtError:
        if not connection.alive():
            raise
        return ""
    return path if os.path.isabs(path) else ""
