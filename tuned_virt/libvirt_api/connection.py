# SPDX-License-Identifier: GPL-2.0-or-later
"""One connection: the inventory of its guests, its events, and what is known of each guest.

All but `note` and the callbacks is for one thread. Everything may raise LibvirtError.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from enum import Enum, auto
from typing import Any

from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import binding, placement_tag, resource_tag, vcpu_watch
from tuned_virt.libvirt_api.errors import LibvirtError

QUICK, PROBING = 0.3, 5.0
"""Seconds without an answer after which libvirt counts as hung: to usual calls, and to one that
may have it look at QEMU first."""

SETTLE = 0.002
"""Seconds in which more events are waited for before guests are listed."""

BALLOON_SETTLE = 1.0
"""The same when only balloons change."""

RELIST = 60.0
"""Seconds after which every running guest is read anew without an event, should one be missed."""

EVENTS = (
    "LIFECYCLE",
    "TUNABLE",
    "METADATA_CHANGE",
    "DEVICE_ADDED",
    "DEVICE_REMOVED",
    "MEMORY_DEVICE_SIZE_CHANGE",
)
"""Of virDomainEventID; those that this libvirt or driver lacks are done without."""

NEEDED = ("LIFECYCLE",)
"""Of those: without it no guest is noticed when it starts."""

NO_SUPPORT = 3
"""VIR_ERR_NO_SUPPORT: this driver has no such call."""

STARTING = ((3, 11), (5, 0))
"""State and reason of a guest that libvirt lists while it still starts it (paused for starting up,
off for an unknown reason): an event follows when it runs."""

OWN_TAGS = (placement_tag.NAMESPACE, *(tag.namespace for tag in resource_tag.ResourceTag))
"""Namespaces of what we write into guests' metadata: no news."""

OFF = -1
"""libvirt's number of a guest that does not run."""


class NoteKind(Enum):
    """Kinds of notes for the worker."""

    GUEST = auto()
    BALLOON = auto()
    POOL = auto()
    WAKE = auto()
    QUESTION = auto()
    OVER = auto()


@dataclass
class Changes:
    """What came since the last listing: guests to read anew, by UUID, or all; that it is over.

    balloons: guests of which only the memory has changed
    """

    uuids: set[str] = field(default_factory=set)
    balloons: set[str] = field(default_factory=set)
    everything: bool = False
    over: bool = False
    questions_only: bool = False


@dataclass(frozen=True)
class Domain:
    """A guest: the same object as long as its XML stays the same.

    `id` is libvirt's number of this run, or `OFF`. The name is another's text: see `printable`.
    """

    uuid: str
    id: int
    name: str
    xml: str
    domain: Any = field(compare=False, repr=False)
    starting: bool = False

    @property
    def run(self) -> tuple[str, int]:
        """This run of the guest: a restarted one is another."""
        return self.uuid, self.id

    @property
    def running(self) -> bool:
        """Whether it runs, or is paused; not while libvirt still starts it."""
        return self.id != OFF and not self.starting


class Connection:
    """A connection, its event registrations, and the guests as they were last read.

    A read-only one, which is for a single question, registers for no events.
    """

    def __init__(
        self, uri: str, notes: queue.SimpleQueue[tuple[NoteKind, str]], read_only: bool = False
    ) -> None:
        self.ended = ""
        self.asked_since: float | None = None
        self._patience = QUICK
        self._notes = notes
        self._known: dict[tuple[str, int], Domain] = {}
        self._own: dict[tuple[str, str], str] = {}
        self._relist_at = time.monotonic() + RELIST
        self.vcpus = vcpu_watch.VcpuWatch(KernelFS())
        self._undo: list[Callable[[], Any]] = []
        self._events: set[str] | None = None if read_only else set()
        self.handle = binding.open_uri(uri, read_only)
        if not read_only:
            with contextlib.suppress(LibvirtError), binding.translated():  # the test driver's none
                self.handle.setKeepAlive(binding.KEEPALIVE, binding.KEEPALIVE_COUNT)
                self.handle.registerCloseCallback(self._on_close, None)
                self._undo.append(self.handle.unregisterCloseCallback)
        try:
            for name in EVENTS:
                self.follow(name)
        except LibvirtError:
            self.close()
            raise

    def follow(self, name: str) -> None:
        """Register for a virDomainEventID, once; what cannot be had is done without.

        But for guests that start and stop: raises LibvirtError where it fails.
        """
        number = getattr(binding.libvirt(), f"VIR_DOMAIN_EVENT_ID_{name}", None)
        callback = getattr(self, f"_on_{name.lower()}", self._on_other)
        self._follow(name, "domainEvent", number, callback)

    def follow_pools(self) -> None:
        """Register for storage pools that come and go, once."""
        number = getattr(binding.libvirt(), "VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE", None)
        self._follow("pools", "storagePoolEvent", number, self._on_pool)

    def _follow(
        self, name: str, method: str, event: int | None, callback: Callable[..., None]
    ) -> None:
        if self._events is None or name in self._events or event is None:
            return
        self._events.add(name)
        try:
            with binding.translated():
                number = getattr(self.handle, f"{method}RegisterAny")(None, event, callback, None)
        except LibvirtError as error:
            if name in NEEDED and error.code != NO_SUPPORT:
                raise
            return
        deregister = getattr(self.handle, f"{method}DeregisterAny")
        self._undo.append(functools.partial(deregister, number))

    # --- events, in libvirt's thread ---------------------------------------------------------

    def _on_close(self, _connection: Any, reason: int, _opaque: Any) -> None:
        self.ended = binding.CLOSED.get(reason, "the connection to libvirtd was lost")
        self.note(NoteKind.OVER)

    def _on_other(self, _connection: Any, domain: Any, *_: Any) -> None:
        self.note(NoteKind.GUEST, domain.UUIDString())

    def _on_balloon_change(self, _connection: Any, domain: Any, *_: Any) -> None:
        self.note(NoteKind.BALLOON, domain.UUIDString())

    def _on_pool(self, *_: Any) -> None:
        self.note(NoteKind.POOL)

    def _on_metadata_change(
        self, _connection: Any, domain: Any, _kind: int, uri: str, _opaque: Any
    ) -> None:
        if uri not in OWN_TAGS:
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
        """Around each group of a few calls, so that a hang is noticed after `patience` seconds.

        Raises LibvirtError for the binding's.
        """
        self._patience, self.asked_since = patience, time.monotonic()
        try:
            with binding.translated():
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

    def own(self, active: Domain, key: str, value: str) -> None:
        """We are about to set a tunable: its event is no news."""
        self._own[active.uuid, key] = value

    def alive(self) -> bool:
        """Whether the connection still serves."""
        with contextlib.suppress(LibvirtError), binding.translated():
            return not self.ended and self.handle.isAlive() == 1
        return False

    def close(self) -> None:
        """Take back the registrations and close; on a dead connection that fails, and may.

        Each is tried twice: one registration that is left keeps the connection open for ever.
        """
        for undo in [*reversed(self._undo), self.handle.close]:
            for _ in range(2):
                with contextlib.suppress(LibvirtError), binding.translated():
                    undo()
                    break

    def wait(self, due: float | None) -> Changes:
        """What happens next, with what follows closely; at the latest in `due` seconds."""
        changes = Changes()
        until = self._relist_at if due is None else min(self._relist_at, time.monotonic() + due)
        kinds = set()
        while not changes.over:
            note = self._next_note(until, changes)
            if note is None:
                break
            kind, uuid = note
            kinds.add(kind)
            until = min(until, time.monotonic() + self._take(changes, kind, uuid))
        if time.monotonic() >= self._relist_at:
            changes.everything = True
            self._relist_at = time.monotonic() + RELIST
        news = changes.everything or changes.uuids
        changes.questions_only = kinds == {NoteKind.QUESTION} and not news
        return changes

    def _next_note(self, until: float, changes: Changes) -> tuple[NoteKind, str] | None:
        """What comes next; None when the time is up, or vCPUs have changed meanwhile."""
        while True:
            left = max(0.0, until - time.monotonic())
            wait = min(left, vcpu_watch.PERIOD) if self.vcpus else left
            with contextlib.suppress(queue.Empty):
                return self._notes.get(timeout=wait)
            if self.vcpus and not changes.uuids:
                changes.uuids |= self.vcpus.changed()
            if changes.uuids or time.monotonic() >= until:
                return None

    def _take(self, changes: Changes, kind: NoteKind, uuid: str) -> float:
        """Note one change; the seconds in which more are waited for."""
        if kind is NoteKind.BALLOON:
            changes.balloons.add(uuid)
            return BALLOON_SETTLE
        if kind is NoteKind.GUEST:
            changes.uuids.add(uuid)
        changes.everything |= kind is NoteKind.POOL
        changes.over = kind is NoteKind.OVER and self.ended != ""
        return 0.0 if kind is NoteKind.QUESTION else SETTLE

    def list(self, changes: Changes, defined: bool = False) -> dict[str, Domain]:
        """The running guests by UUID, paused ones too, or all; XML is read anew where it may have
        changed."""
        flags = 0 if defined else binding.libvirt().VIR_CONNECT_LIST_DOMAINS_ACTIVE
        known = {}
        with self.asking():
            domains = self.handle.listAllDomains(flags)
        for domain in domains:
            key = (domain.UUIDString(), domain.ID())
            one = self._known.get(key)
            anew = one is None or one.starting or one.uuid in changes.uuids
            if anew or (changes.everything and key[1] != OFF):
                one = self._read(domain, one)
            if one is not None and (defined or one.running):
                known[key] = one
        self._known = known
        guests = {one.uuid: one for one in known.values()}
        for uuid, name in [key for key in self._own if key[0] not in guests]:
            del self._own[uuid, name]
        return guests

    def _read(self, domain: Any, old: Domain | None) -> Domain | None:
        """A guest as it is now, the old object if nothing differs; None if it has gone."""
        try:
            with self.asking():
                uuid, number, name = domain.UUIDString(), domain.ID(), domain.name()
                fresh = number != OFF and (old is None or old.starting)
                starting = fresh and tuple(domain.state()) in STARTING
                new = Domain(uuid, number, name, domain.XMLDesc(0), domain, starting)
        except LibvirtError:
            if not self.alive():
                raise
            return None
        return old if old == new else new

    def reread(self, active: Domain) -> Domain:
        """After we have changed a guest: as it is now."""
        new = self._read(active.domain, active) or active
        self._known[new.uuid, new.id] = new
        return new
