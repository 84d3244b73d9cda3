# SPDX-License-Identifier: GPL-2.0-or-later
"""Running guests, and what memory they may use.

Memory comes from `virDomainGetInfo`, not from the balloon statistics: those ask QEMU itself, and
one stopped QEMU would then keep all guests from being listed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from tuned_virt.frozen_dataclasses import dataclass, replace
from tuned_virt.libvirt_api.connection import Connection, Domain
from tuned_virt.libvirt_api.follower import GuestReader
from tuned_virt.libvirt_api.worker import GuestsView
from tuned_virt.model import xml as safexml
from tuned_virt.model.guest import printable
from tuned_virt.model.xml import XmlError

log = logging.getLogger("tuned")


@dataclass(frozen=True)
class RunningGuest:
    """A running guest as libvirt knows it.

    `memory` is what it may use now (balloon.current), in KiB. `shares_pages` is False with
    <memoryBacking><nosharepages/>. The name is another's text: see `printable`.
    """

    uuid: str
    name: str
    memory: int
    shares_pages: bool


def shares_pages(xml: str) -> bool:
    """Whether a guest's XML lets the kernel merge its pages. Raises XmlError."""
    return safexml.read(
        xml, "domain", lambda root: root.find("memoryBacking/nosharepages") is None, XmlError
    )


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
        return RunningGuest(domain.uuid, domain.name, memory, _shares_pages(domain))

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


def _shares_pages(domain: Domain) -> bool:
    try:
        return shares_pages(domain.xml)
    except XmlError as error:
        why = printable(str(error))
        log.warning("guest %s: its XML cannot be read: %s", printable(domain.name), why)
        return True
