# SPDX-License-Identifier: GPL-2.0-or-later
"""What plugins follow of libvirt's guests: read by the worker from the one inventory.

Callers only start and stop; nothing here waits for libvirt.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.connection import Connection, Domain
from tuned_virt.libvirt_api.errors import LibvirtError
from tuned_virt.libvirt_api.worker import GuestsView, ask_once, libvirt_worker

log = logging.getLogger("tuned")

NAMED = 3
"""Most changes that one reason names."""

NOT_FOLLOWED = (None, "libvirt has not been queried yet")

CALL_PATIENCE = 0.03
"""Seconds that stop() waits for a call of `changed` that has begun."""

G = TypeVar("G")
"""What is known of one guest."""


class GuestReader(ABC, Generic[G]):
    """Reads what one kind of follower wants to know, of each guest only when that may differ.

    defined: of guests that do not run too
    """

    defined = False

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], G] = {}

    @abstractmethod
    def read(self, connection: Connection, domain: Domain, old: G | None) -> G:
        """What is known of a guest. Raises LibvirtError."""

    @abstractmethod
    def differences(self, before: Mapping[str, G], after: Mapping[str, G]) -> Iterator[str]:
        """What happened between two listings, in words."""

    def outdated(self, view: GuestsView, known: G, domain: Domain) -> bool:
        """Whether a guest is to be read again."""
        return domain.uuid in view.changes.uuids

    def look(self, view: GuestsView) -> dict[str, G]:
        """The guests by UUID; without those that have gone meanwhile. Raises LibvirtError."""
        known = {}
        for domain in (view.defined if self.defined else view.guests).values():
            old = self._known.get(domain.run)
            if old is not None and not self.outdated(view, old, domain):
                known[domain.run] = old
                continue
            try:
                known[domain.run] = self.read(view.connection, domain, old)
            except LibvirtError:
                if not view.connection.alive():
                    raise
        self._known = known
        return {uuid: guest for (uuid, _), guest in known.items()}

    def forget(self) -> None:
        """Read all again."""
        self._known = {}

    def once(self, uri: str = binding.SYSTEM) -> dict[str, G] | None:
        """The guests by UUID, asked once, read-only; None if libvirt does not tell soon."""
        return ask_once(self.look, uri, self.defined)


def summary(changes: Iterator[str]) -> str:
    """Changes in one line; "" for none."""
    known = [*changes]
    more = f" and {len(known) - NAMED} more changes" if len(known) > NAMED else ""
    return ", ".join(known[:NAMED]) + more


class GuestFollower(Generic[G]):
    """Follows guests as a reader reads them; never blocks its caller. See `GuestSource`.

    What it is started with is called from libvirt's worker once `guests` shows a change, once for
    all changes of a listing. It should only wake somebody: while it runs, nothing is followed.
    """

    def __init__(self, reader: GuestReader[G], uri: str = binding.SYSTEM) -> None:
        self.defined = reader.defined
        self._reader = reader
        self._uri = uri
        self._changed: Callable[[str], None] | None = None
        self._state: tuple[Mapping[str, G] | None, str] = NOT_FOLLOWED
        self._missed = False
        self._calling = threading.RLock()

    def start(self, changed: Callable[[str], None]) -> None:
        """Begin to follow."""
        worker = libvirt_worker(self._uri)
        why = worker.unavailable
        known = why not in ("", worker.UNASKED)
        self._state = (None, why if known else "libvirt has not answered yet")
        self._changed, self._missed = changed, False
        worker.register(self)

    def stop(self) -> None:
        """Follow no more; returns at once, and no call of `changed` begins afterwards."""
        self._changed = None
        libvirt_worker(self._uri).unregister(self)
        if self._calling.acquire(timeout=CALL_PATIENCE):
            self._calling.release()

    @property
    def guests(self) -> Mapping[str, G] | None:
        """The guests by UUID, paused ones too; None while libvirt is unavailable."""
        return None if self._changed is None else self._state[0]

    @property
    def unavailable(self) -> str:
        """Why `guests` is None; "" otherwise."""
        return NOT_FOLLOWED[1] if self._changed is None else self._state[1]

    def reconcile(self, view: GuestsView) -> float | None:
        """See `worker.Reconciler`."""
        try:
            guests = self._reader.look(view)
        except LibvirtError:
            raise
        except Exception:
            log.exception("libvirt: internal error, please report it")
            return None
        before, self._state = self._state[0], (MappingProxyType(guests), "")
        if before is not None:
            self._call(summary(self._reader.differences(before, guests)))
        else:
            self._call("libvirt is available again" if self._missed else "libvirt is available")
        return None

    def unreachable(self, why: str) -> None:
        """See `worker.Reconciler`."""
        had = self._state[0] is not None
        self._state, self._missed = (None, why), True
        self._reader.forget()
        self._call(f"libvirt is no longer available: {why}" if had else "")

    def _call(self, reason: str) -> None:
        with self._calling:
            changed = self._changed
            if not reason or changed is None:
                return
            try:
                changed(reason)
            except Exception:
                log.exception("libvirt: internal error, please report it")
