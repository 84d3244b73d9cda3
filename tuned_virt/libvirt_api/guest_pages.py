# SPDX-License-Identifier: GPL-2.0-or-later
"""What all guests, defined or running, ask for in <memoryBacking><hugepages>."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.libvirt_api.connection import OFF, Connection, Domain
from tuned_virt.libvirt_api.follower import GuestReader
from tuned_virt.libvirt_api.worker import GuestsView
from tuned_virt.model.guest import Guest, GuestError, printable, read_guest

log = logging.getLogger("tuned")


@dataclass(frozen=True)
class Asking:
    """A guest that may ask for huge pages; `guest` is None where its XML is not understood.

    `seen` is the hash of the XML.
    """

    uuid: str
    running: bool
    guest: Guest | None
    seen: int = field(default=0, compare=False)


class GuestPageReader(GuestReader[Asking]):
    """Reads what a guest asks for at its next start, or asked for at this one."""

    defined = True

    def read(self, connection: Connection, domain: Domain, old: Asking | None) -> Asking:
        """See `GuestReader`."""
        guest = None
        try:
            guest = read_guest(domain.xml)
        except GuestError as error:
            name, why = printable(domain.name), printable(str(error))
            log.warning("hugepages_numa: guest %s is not included: %s", name, why)
        return Asking(domain.uuid, domain.id != OFF, guest, hash(domain.xml))

    def outdated(self, view: GuestsView, known: Asking, domain: Domain) -> bool:
        """See `GuestReader`. What is requested of a virtio-mem device changes without an event."""
        return super().outdated(view, known, domain) or known.seen != hash(domain.xml)

    def differences(
        self, before: Mapping[str, Asking], after: Mapping[str, Asking]
    ) -> Iterator[str]:
        """See `GuestReader`."""
        if before != after:
            yield "guests were added, removed or changed"
