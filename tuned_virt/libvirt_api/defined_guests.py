# SPDX-License-Identifier: GPL-2.0-or-later
"""All guests, defined or running, each read again only after an event of its own."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol, TypeVar

from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.follower import FollowerChanges, FollowerNoteKind, FollowerSession


class GuestWithUuid(Protocol):
    """What is known of one guest."""

    @property
    def uuid(self) -> str:
        """Its UUID."""


K = TypeVar("K", bound=GuestWithUuid)


class DefinedSession(FollowerSession[K]):
    """One connection that lists all guests; `_parse` makes what is known of one from its XML."""

    def __init__(self, uri: str, follow: bool = False) -> None:
        self._stale: set[str] = set()
        super().__init__(uri, follow)

    @abstractmethod
    def _parse(self, domain: Any) -> K:
        """What is known of a guest. Raises libvirtError."""

    def _unfinished(self, known: K) -> bool:
        """Whether a guest is to be read again though nothing happened to it."""
        return False

    def _on_lifecycle(self, *arguments: Any) -> None:
        self._stale.add(arguments[1].UUIDString())
        self.note(FollowerNoteKind.GUESTS)

    def list(self, news: FollowerChanges) -> dict[str, K]:
        """All guests by UUID. Raises libvirtError."""
        known = {}
        stale, self._stale = self._stale, set()
        for domain in self._connection.listAllDomains(0):
            key = (domain.UUIDString(), domain.ID())
            guest = self._known.get(key)
            again = guest is not None and news.everything and self._unfinished(guest)
            if guest is None or again or guest.uuid in stale:
                guest = self._read(domain)
            if guest is not None:
                known[key] = guest
        self._known = known
        return {guest.uuid: guest for guest in known.values()}

    def _read(self, domain: Any) -> K | None:
        """A guest; None for one that has gone since."""
        try:
            return self._parse(domain)
        except binding.libvirt.libvirtError:
            if self.ended or not self._connection.isAlive():
                raise
            return None
