# SPDX-License-Identifier: GPL-2.0-or-later
"""Running guests, and what memory they may use.

Memory comes from `virDomainGetInfo`, not from the balloon statistics: those ask QEMU itself, and
one stopped QEMU would then keep all guests from being listed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from xml.etree.ElementTree import Element

from tuned_virt.frozen_dataclasses import dataclass, replace
from tuned_virt.libvirt_api.connection import Connection, Domain
from tuned_virt.libvirt_api.follower import GuestReader
from tuned_virt.libvirt_api.worker import GuestsView
from tuned_virt.model import xml as safexml
from tuned_virt.model import xml_values
from tuned_virt.model.guest import devices, printable
from tuned_virt.model.xml import XmlError

log = logging.getLogger("tuned")


@dataclass(frozen=True)
class RunningGuest:
    """A running guest as libvirt knows it.

    `memory` is what it may use now (balloon.current), in KiB. `shares_pages` is False with
    <memoryBacking><nosharepages/>; `huge` where all its memory is in huge pages, `apart` where it
    is shared with other programs (vhost-user, virtiofs), encrypted, or held by a device: KSM merges
    none of these. The name is another's text: see `printable`.
    """

    uuid: str
    name: str
    memory: int
    shares_pages: bool
    huge: bool = False
    apart: bool = False

    @property
    def mergeable(self) -> bool:
        """Whether KSM can merge its memory."""
        return self.shares_pages and not self.huge and not self.apart


class RunningGuestReader(GuestReader[RunningGuest]):
    """Reads running guests; balloons are followed."""

    def outdated(self, view: GuestsView, known: RunningGuest, domain: Domain) -> bool:
        """See `GuestReader`."""
        changes = view.changes
        return changes.everything or known.uuid in changes.uuids | changes.balloons

    def read(
        self, connection: Connection, domain: Domain, old: RunningGuest | None
    ) -> RunningGuest:
        """See `GuestReader`."""
        connection.follow("BALLOON_CHANGE")
        with connection.asking():
            memory = int(domain.domain.info()[2])
        if old is not None:
            return old if old.memory == memory else replace(old, memory=memory)
        return RunningGuest(domain.uuid, domain.name, memory, *_backing(domain))

    def differences(
        self, before: Mapping[str, RunningGuest], after: Mapping[str, RunningGuest]
    ) -> Iterator[str]:
        """See `GuestReader`. Another object for the same guest, with nothing else changed, is a
        restart."""
        for uuid in before.keys() - after.keys():
            yield f"guest {printable(before[uuid].name)} stopped"
        for uuid, guest in after.items():
            old, name = before.get(uuid), printable(guest.name)
            if old is None:
                yield f"guest {name} started"
            elif old is not guest and old.memory == guest.memory:
                yield f"guest {name} restarted"
            elif old.memory != guest.memory:
                yield f"guest {name} has {guest.memory >> 10} MiB"


def backing(xml: str) -> tuple[bool, bool, bool]:
    """Whether a guest's pages may be merged, are all huge, and cannot be merged. Raises XmlError.

    A page that a device holds by VFIO has one user more than KSM knows of (the kernel's mm/ksm.c,
    write_protect_page).
    """
    return safexml.read(xml, "domain", _read_backing, XmlError)


def _read_backing(root: Element) -> tuple[bool, bool, bool]:
    protected = root.find("launchSecurity") is not None
    return (
        root.find("memoryBacking/nosharepages") is None,
        _all_huge(root),
        _is_shared(root) or protected or devices.hold_all_memory(root),
    )


def _all_huge(root: Element) -> bool:
    """Whether pages are named for all cells; without cells libvirt takes nodeset='0' for all."""
    element = root.find("memoryBacking/hugepages")
    if element is None:
        return False
    pages = element.findall("page")
    if not pages or any(page.get("nodeset") is None for page in pages):
        return True
    there = root.findall("cpu/numa/cell")
    cells = {xml_values.attribute(cell, "id", place) for place, cell in enumerate(there)} or {0}
    return cells <= {cell for page in pages for cell in xml_values.cpu_set(page, "nodeset")}


def _is_shared(root: Element) -> bool:
    access = root.find("memoryBacking/access")
    source = root.find("memoryBacking/source")
    cells = [cell.get("memAccess") for cell in root.iterfind("cpu/numa/cell")]
    shared = access is not None and access.get("mode") == "shared"
    memfd = access is None and source is not None and source.get("type") == "memfd"
    return shared or memfd or (bool(cells) and set(cells) == {"shared"})


def _backing(domain: Domain) -> tuple[bool, bool, bool]:
    try:
        return backing(domain.xml)
    except XmlError as error:
        why = printable(str(error))
        log.warning("guest %s: its XML cannot be read: %s", printable(domain.name), why)
        return True, False, False
