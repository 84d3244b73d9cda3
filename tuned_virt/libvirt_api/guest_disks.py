# SPDX-License-Identifier: GPL-2.0-or-later
"""The disks of all guests, defined or running, as libvirt's XML names them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.backing_chains import BackingChains, from_pools
from tuned_virt.libvirt_api.connection import OFF, Connection, Domain
from tuned_virt.libvirt_api.errors import LibvirtError
from tuned_virt.libvirt_api.follower import GuestReader
from tuned_virt.libvirt_api.worker import GuestsView
from tuned_virt.model.guest import printable
from tuned_virt.model.guest.disk_sources import (
    NETWORK_POOLS,
    DiskSource,
    GuestDisk,
    read_disks,
    read_pool_type,
)
from tuned_virt.model.xml import XmlError


@dataclass(frozen=True)
class GuestDisks:
    """A guest and what its disks are made of.

    paths       on this machine; they are of others
    network     protocols of what is elsewhere
    unknown     what is neither, in words
    unresolved  volumes whose pool does not tell their path now: it may be inactive
    tops        paths of the images that the guest writes to
    """

    uuid: str
    name: str
    paths: tuple[str, ...]
    network: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    unresolved: tuple[str, ...] = ()
    tops: tuple[str, ...] = field(default=(), compare=False)


class GuestDiskReader(GuestReader[GuestDisks]):
    """Reads what a guest's disks lie on: definitions, starts, hot-plugged disks, pools."""

    defined = True

    def __init__(self, chains: BackingChains | None = None) -> None:
        super().__init__()
        self._chains = chains or BackingChains()

    def outdated(self, view: GuestsView, known: GuestDisks, domain: Domain) -> bool:
        """See `GuestReader`. A volume that no pool told of may have a path now."""
        unfinished = view.changes.everything and bool(known.unresolved)
        return unfinished or super().outdated(view, known, domain)

    def read(self, connection: Connection, domain: Domain, old: GuestDisks | None) -> GuestDisks:
        """See `GuestReader`. The disks that run, and those of the next start."""
        connection.follow("BLOCK_JOB_2")  # of which a chain gets longer or shorter
        texts = [domain.xml]
        with connection.asking():
            if domain.id != OFF and domain.domain.isPersistent():
                texts.append(domain.domain.XMLDesc(binding.libvirt().VIR_DOMAIN_XML_INACTIVE))
        try:
            disks = [disk for text in texts for disk in read_disks(text)]
        except XmlError as error:
            reason = f"its XML cannot be read: {printable(str(error))}"
            return GuestDisks(domain.uuid, domain.name, (), unknown=(reason,))
        parts = _Parts(connection, self._chains)
        for disk in disks:
            parts.add(disk)
        return parts.of(domain)

    def differences(
        self, before: Mapping[str, GuestDisks], after: Mapping[str, GuestDisks]
    ) -> Iterator[str]:
        """See `GuestReader`. A defined guest's start or stop is nothing."""
        for uuid in before.keys() - after.keys():
            yield f"guest {printable(before[uuid].name)} is gone"
        for uuid, guest in after.items():
            if uuid not in before:
                yield f"guest {printable(guest.name)} is there"
            elif before[uuid] != guest:
                yield f"guest {printable(guest.name)} has other disks"


class FollowedGuestDisks(GuestDiskReader):
    """The same for who follows guests: it writes down the chains that running guests show."""

    def look(self, view: GuestsView) -> dict[str, GuestDisks]:
        """See `GuestReader`."""
        guests = super().look(view)
        self._chains.save({path for guest in guests.values() for path in guest.tops})
        return guests


class _Parts:
    """What the disks of one guest are made of."""

    def __init__(self, connection: Connection, chains: BackingChains) -> None:
        self._connection = connection
        self._chains = chains
        self._tops: set[str] = set()
        self._found: list[DiskSource] = []

    def add(self, disk: GuestDisk) -> None:
        """One more disk. Raises LibvirtError."""
        known = [self._resolved(one) for one in (*disk.chain, *disk.copies)]
        self._found += known
        if disk.source is None:
            return
        top = self._resolved(disk.source)
        self._found.append(top)
        if not top.path:
            return
        self._tops.add(top.path)
        if disk.complete:
            self._chains.learn(top.path, tuple(known[: len(disk.chain)]))
        else:
            self._found += self._below(top.path, disk.format)

    def _below(self, path: str, image_format: str) -> tuple[DiskSource, ...]:
        """The images below one, of which the XML says nothing."""
        remembered = self._chains.of(path)
        if remembered is None:
            return from_pools(self._connection, path, image_format)
        return remembered

    def _resolved(self, source: DiskSource) -> DiskSource:
        return _volume(self._connection, source) if source.pool else source

    def of(self, domain: Domain) -> GuestDisks:
        """All of it."""

        def each(words: Iterator[str]) -> tuple[str, ...]:
            return tuple(sorted({word for word in words if word}))

        return GuestDisks(
            domain.uuid,
            domain.name,
            each(one.path for one in self._found),
            each(one.network for one in self._found),
            each(one.other for one in self._found),
            each(_named(one) for one in self._found),
            each(iter(self._tops)),
        )


def _named(source: DiskSource) -> str:
    """A volume in words, "" for what is none."""
    return f"volume {source.volume} of storage pool {source.pool}" if source.pool else ""


def _volume(connection: Connection, source: DiskSource) -> DiskSource:
    """Where a volume lies; the source as it is while its pool does not tell."""
    connection.follow_pools()
    try:
        with connection.asking():
            pool = connection.handle.storagePoolLookupByName(source.pool)
            kind = read_pool_type(pool.XMLDesc(0))
            if kind in NETWORK_POOLS:
                return DiskSource(network=kind)
            path: str = pool.storageVolLookupByName(source.volume).path()
    except XmlError:
        return source
    except LibvirtError:
        if not connection.alive():
            raise
        return source
    return DiskSource(path) if os.path.isabs(path) else source
