# SPDX-License-Identifier: GPL-2.0-or-later
"""What all guests, defined or running, ask for in <memoryBacking><hugepages>."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.defined_guests import DefinedSession
from tuned_virt.libvirt_api.follower import FollowerSession, LibvirtFollower, ask_once
from tuned_virt.model.guest import Guest, GuestError, printable

log = logging.getLogger("tuned")


@dataclass(frozen=True)
class Asking:
    """A guest that may ask for huge pages; `guest` is None where its XML is not understood."""

    uuid: str
    running: bool
    guest: Guest | None


class PageSession(DefinedSession[Asking]):
    """One connection; what a guest asks for at its next start, or asked for at this one."""

    def _parse(self, domain: Any) -> Asking:
        uuid, running = domain.UUIDString(), bool(domain.isActive())
        try:
            return Asking(uuid, running, Guest.from_xml(domain.XMLDesc(0)))
        except GuestError as error:
            name, why = printable(domain.name()), printable(str(error))
            log.warning("hugepages_numa: guest %s is left out: %s", name, why)
            return Asking(uuid, running, None)


class PageFollower(LibvirtFollower[Asking]):
    """Follows which guests ask for huge pages, and which of them run."""

    def _connect(self) -> FollowerSession[Asking]:
        return PageSession(self._uri, follow=True)

    def _difference(self, before: Mapping[str, Asking], after: Mapping[str, Asking]) -> str:
        return "" if before == after else "guests have come, gone or changed"


def asking_guests(uri: str = binding.SYSTEM) -> dict[str, Asking] | None:
    """The same by UUID, asked once, read-only; None if libvirt does not tell soon."""
    return ask_once(PageSession, uri)
