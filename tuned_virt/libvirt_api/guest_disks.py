# SPDX-License-Identifier: GPL-2.0-or-later
"""The disks of all guests, defined or running, as libvirt's XML names them."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.defined_guests import DefinedSession
from tuned_virt.libvirt_api.follower import (
    FollowerNoteKind,
    FollowerSession,
    LibvirtFollower,
    ask_once,
)
from tuned_virt.model.guest import printable

NAMED = 3
"""Most guests that one reason names."""


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

    Raises ValueError for XML that is none, or that brings a DTD or entities.
    """
    try:
        root = binding.SafeTree.fromstring(xml, forbid_dtd=True)
    except binding.SafeTree.ParseError as error:
        raise ValueError(str(error)) from error
    return [
        source
        for disk in root.iterfind("devices/disk")
        for element in disk.iter("source")
        if (source := _source(element)) is not None
    ]


def _source(element: Any) -> DiskSource | None:
    path = element.get("file") or element.get("dev") or element.get("dir") or ""
    if os.path.isabs(path):
        return DiskSource(path)
    pool, volume = element.get("pool", ""), element.get("volume", "")
    return DiskSource(pool=pool, volume=volume) if pool and volume else None


class DiskFollower(LibvirtFollower[GuestDisks]):
    """Follows which guests have which disks: definitions, starts and hot-plugged disks."""

    def _connect(self) -> FollowerSession[GuestDisks]:
        return DiskSession(self._uri, follow=True)

    def _difference(self, before: Mapping[str, GuestDisks], after: Mapping[str, GuestDisks]) -> str:
        return difference(before, after)


def guest_disks(uri: str = binding.SYSTEM) -> dict[str, GuestDisks] | None:
    """All guests' disks by UUID, asked once, read-only; None if libvirt does not tell soon."""
    return ask_once(DiskSession, uri)


def difference(before: Mapping[str, GuestDisks], after: Mapping[str, GuestDisks]) -> str:
    """What happened to guests' disks between two listings, in words; "" for nothing.

    A defined guest's start or stop is nothing.
    """
    changes = [*_differences(before, after)]
    more = f" and {len(changes) - NAMED} more changes" if len(changes) > NAMED else ""
    return ", ".join(changes[:NAMED]) + more


def _differences(
    before: Mapping[str, GuestDisks], after: Mapping[str, GuestDisks]
) -> Iterator[str]:
    for uuid in before.keys() - after.keys():
        yield f"guest {printable(before[uuid].name)} is gone"
    for uuid, guest in after.items():
        if uuid not in before:
            yield f"guest {printable(guest.name)} is there"
        elif before[uuid].paths != guest.paths:
            yield f"guest {printable(guest.name)} has other disks"


class DiskSession(DefinedSession[GuestDisks]):
    """One connection; what a guest's disks lie on."""

    def _register(self) -> None:
        super()._register()
        for event in (
            binding.libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
            binding.libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
        ):
            number = self._connection.domainEventRegisterAny(None, event, self._on_lifecycle, None)
            deregister = self._connection.domainEventDeregisterAny
            self._undo.append(functools.partial(deregister, number))
        with contextlib.suppress(binding.libvirt.libvirtError):  # no virtstoraged: asked in time
            number = self._connection.storagePoolEventRegisterAny(
                None, binding.libvirt.VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE, self._on_pool, None
            )
            deregister = self._connection.storagePoolEventDeregisterAny
            self._undo.append(functools.partial(deregister, number))

    def _on_pool(self, *_: Any) -> None:
        """A pool has come or gone: the volumes that none told of may have a path now."""
        known = self._known.values()
        self._stale.update(guest.uuid for guest in known if self._unfinished(guest))
        self.note(FollowerNoteKind.GUESTS)

    def _unfinished(self, known: GuestDisks) -> bool:
        return known.unresolved > 0

    def _parse(self, domain: Any) -> GuestDisks:
        """A guest's disks, those that run and those of its next start."""
        texts = [domain.XMLDesc(0)]
        if domain.isActive() and domain.isPersistent():
            texts.append(domain.XMLDesc(binding.libvirt.VIR_DOMAIN_XML_INACTIVE))
        try:
            found = [source for text in texts for source in sources(text)]
        except ValueError:
            return GuestDisks(domain.UUIDString(), domain.name(), ())
        paths = [self._path(source) for source in found]
        known = tuple(sorted({path for path in paths if path}))
        return GuestDisks(domain.UUIDString(), domain.name(), known, paths.count(""))

    def _path(self, source: DiskSource) -> str:
        """Where a source lies; "" for a volume that its pool does not tell of now."""
        if source.path:
            return source.path
        try:
            pool = self._connection.storagePoolLookupByName(source.pool)
            path: str = pool.storageVolLookupByName(source.volume).path()
        except binding.libvirt.libvirtError:
            if self.ended or not self._connection.isAlive():
                raise
            return ""
        return path if os.path.isabs(path) else ""
