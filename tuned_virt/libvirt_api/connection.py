# SPDX-License-Identifier: GPL-2.0-or-later
"""One read-write connection: listing guests, its events, and what it knows of each guest.

All but `note` and the callbacks is for one thread. Everything may raise libvirtError.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from tuned_virt.libvirt_api import binding, placement_tag

QUICK, PROBING = 0.3, 5.0
"""Seconds without an answer after which libvirt counts as hung: to usual calls, and to one that
may have it look at QEMU first."""

SETTLE = 0.002
"""Seconds in which more events are waited for before guests are listed."""

RELIST = 60.0
"""Seconds after which every guest is read anew without an event: vCPU hotplug brings none."""

EVENTS = (
    "LIFECYCLE",
    "TUNABLE",
    "METADATA_CHANGE",
    "DEVICE_ADDED",
    "DEVICE_REMOVED",
    "MEMORY_DEVICE_SIZE_CHANGE",
)
"""Of virDomainEventID; those that this libvirt or driver lacks are done without."""


STARTING = ((3, 11), (5, 0))
"""State and reason of a guest that libvirt lists while it still starts it (paused for starting up,
off for an unknown reason): an event follows when it runs."""


class NoteKind(Enum):
    """Kinds of notes for the worker."""

    GUEST = auto()
    WAKE = auto()
    QUESTION = auto()
    OVER = auto()


@dataclass
class Changes:
    """What came since the last listing: guests to read anew, by UUID, or all; that it is over."""

    uuids: set[str] = field(default_factory=set)
    everything: bool = False
    over: bool = False
    questions_only: bool = False


@dataclass(frozen=True)
class Domain:
    """A running guest: the same object as long as its XML stays the same.

    `id` is libvirt's number of this run. The name is another's text: see `printable`.
    """

    uuid: str
    id: int
    name: str
    xml: str
    domain: Any = field(compare=False, repr=False)

    @property
    def run(self) -> tuple[str, int]:
        """This run of the guest: a restarted one is another."""
        return self.uuid, self.id


class Connection:
    """A connection, its event registrations, and the guests as they were last read."""

    def __init__(self, uri: str, notes: queue.SimpleQueue[tuple[NoteKind, str]]) -> None:
        self.ended = ""
        self.asked_since: float | None = time.monotonic()
        self._patience = QUICK
        self._notes = notes
        self._known: dict[tuple[str, int], Domain] = {}
        self._own: dict[tuple[str, str], str] = {}
        self._relist_at = time.monotonic() + RELIST
        self._undo: list[Callable[[], Any]] = []
        binding.quiet()
        self.handle = binding.libvirt.open(uri)
        try:
            self._register()
        except binding.libvirt.libvirtError:
            self.close()
            raise

    def _register(self) -> None:
        connection = self.handle
        with contextlib.suppress(binding.libvirt.libvirtError):  # the test driver has none
            connection.setKeepAlive(binding.KEEPALIVE, binding.KEEPALIVE_COUNT)
            connection.registerCloseCallback(self._on_close, None)
            self._undo.append(connection.unregisterCloseCallback)
        for name in EVENTS:
            event = getattr(binding.libvirt, f"VIR_DOMAIN_EVENT_ID_{name}", None)
            callback = getattr(self, f"_on_{name.lower()}", self._on_other)
            with contextlib.suppress(binding.libvirt.libvirtError):
                if event is not None:
                    number = connection.domainEventRegisterAny(None, event, callback, None)
                    undo = functools.partial(connection.domainEventDeregisterAny, number)
                    self._undo.append(undo)

    # --- events, in libvirt's thread ---------------------------------------------------------

    def _on_close(self, _connection: Any, reason: int, _opaque: Any) -> None:
        self.ended = binding.CLOSED.get(reason, "the connection to libvirtd broke")
        self.note(NoteKind.OVER)

    def _on_lifecycle(self, _connection: Any, domain: Any, *_: Any) -> None:
        self.note(NoteKind.GUEST, domain.UUIDString())

    def _on_other(self, _connection: Any, domain: Any, *_: Any) -> None:
        self.note(NoteKind.GUEST, domain.UUIDString())

    def _on_metadata_change(
        self, _connection: Any, domain: Any, _kind: int, uri: str, _opaque: Any
    ) -> None:
        if uri != placement_tag.NAMESPACE:
            self.note(NoteKind.GUEST, domain.UUIDString())

    def _on_tunable(
        self, _connection: Any, domain: Any, changed: Mapping[str, Any], _opaque: Any
    ) -> None:
        uuid = domain.UUIDString()
        if any(self._own.get((uuid, key)) != str(value) for key, value in changed.items()):
            self.note(NoteKind.GUEST, uuid)

    def note(self, kind: NoteKind, uuid: str = "") -> None:
        """Leave word for the worker; from any thread."""
        self._notes.put((kind, uuid))

    # --- the worker ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def asking(self, patience: float = QUICK) -> Iterator[None]:
        """Around each group of a few calls, so that a hang is noticed after `patience` seconds."""
        self._patience, self.asked_since = patience, time.monotonic()
        try:
            yield
        finally:
            self.asked_since = None

    @property
    def unresponsive(self) -> bool:
        """Whether libvirt has not answered for longer than it should take."""
        since = self.asked_since
        return since is not None and time.monotonic() - since > self._patience

    def capabilities(self) -> str:
        """The host, as XML: libvirt may start every QEMU that there is to answer first."""
        with self.asking(PROBING):
            xml: str = self.handle.getCapabilities()
            return xml

    def idle(self) -> None:
        """Nothing is being asked."""
        self.asked_since = None

    def own(self, active: Domain, key: str, value: str) -> None:
        """We are about to set a tunable: its event is no news."""
        self._own[active.uuid, key] = value

    def alive(self) -> bool:
        """Whether the connection still serves."""
        with contextlib.suppress(binding.libvirt.libvirtError):
            return not self.ended and self.handle.isAlive() == 1
        return False

    def close(self) -> None:
        """Take back the registrations and close; on a dead connection that fails, and may."""
        for undo in reversed(self._undo):
            with contextlib.suppress(binding.libvirt.libvirtError):
                undo()
        with contextlib.suppress(binding.libvirt.libvirtError):
            self.handle.close()

    def wait(self, due: float | None) -> Changes:
        """What happens next, with what follows closely; at the latest in `due` seconds."""
        news = Changes()
        until = self._relist_at if due is None else min(self._relist_at, time.monotonic() + due)
        asked = False
        while not news.over:
            try:
                kind, uuid = self._notes.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if kind is NoteKind.QUESTION:
                asked = True
                until = min(until, time.monotonic())
                continue
            news.over = kind is NoteKind.OVER and self.ended != ""
            if kind is NoteKind.GUEST:
                news.uuids.add(uuid)
            asked = False
            until = min(until, time.monotonic() + SETTLE)
        if time.monotonic() >= self._relist_at:
            news.everything = True
            self._relist_at = time.monotonic() + RELIST
        news.questions_only = asked and not (news.over or news.uuids or news.everything)
        return news

    def list(self, news: Changes) -> dict[str, Domain]:
        """The running guests by UUID, paused ones too; the XML is read anew where news asks."""
        known = {}
        with self.asking():
            domains = self.handle.listAllDomains(binding.libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        for domain in domains:
            key = (domain.UUIDString(), domain.ID())
            active = self._known.get(key)
            if active is None or news.everything or active.uuid in news.uuids:
                active = self.read(domain, active)
            if active is not None:
                known[key] = active
        self._known = known
        guests = {active.uuid: active for active in known.values()}
        for uuid, name in [key for key in self._own if key[0] not in guests]:
            del self._own[uuid, name]
        return guests

    def read(self, domain: Any, old: Domain | None) -> Domain | None:
        """A guest as it is now, the old object if nothing differs; None if it has gone."""
        try:
            with self.asking():
                if old is None and tuple(domain.state()) in STARTING:
                    return None
                uuid, number = domain.UUIDString(), domain.ID()
                xml, name = domain.XMLDesc(0), domain.name()
        except binding.libvirt.libvirtError:
            if not self.alive():
                raise
            return None
        new = Domain(uuid, number, name, xml, domain)
        return old if old == new else new

    def reread(self, active: Domain) -> Domain:
        """After we have changed a guest: as it is now."""
        new = self.read(active.domain, active) or active
        self._known[new.uuid, new.id] = new
        return new
