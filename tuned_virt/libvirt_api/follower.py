# SPDX-License-Identifier: GPL-2.0-or-later
"""Running guests as libvirt knows them, followed without ever waiting for libvirt.

Three kinds of threads: the caller's, which only starts and stops; the one that runs libvirt's event
loop, whose callbacks only leave a note; and one worker for each `Hypervisor`, which alone asks
libvirt and so alone waits while libvirtd hangs.

Memory comes from `virDomainGetInfo`, not from the balloon statistics: those ask QEMU itself, and
one stopped QEMU would then keep all guests from being listed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import logging
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.running_guests import RunningGuest, difference, shares_pages
from tuned_virt.model.guest import printable

log = logging.getLogger("tuned")

FIRST_RETRY, LONGEST_RETRY = 1.0, 30.0
"""Seconds between attempts to reach libvirt: the first, doubled each time, and the longest."""

SETTLE = 0.05
"""Seconds in which more starts and stops are waited for before guests are listed."""

BALLOON_SETTLE = 1.0
"""The same when only balloons change."""

RELIST = 60.0
"""Seconds after which guests are listed and their memory is read also without events."""

CALL_PATIENCE = 0.03
"""Seconds that stop() waits for a call of `changed` that has begun."""

ONE_SHOT_PATIENCE = 5.0
"""Seconds that running_guests waits for libvirt."""


G = TypeVar("G")
"""What is known of one guest."""


class LibvirtFollower(ABC, Generic[G]):
    """Follows libvirt's guests in threads of its own; never blocks its caller.

    `changed(reason)` is called from the worker thread once `guests` shows the change, once for all
    changes of a listing. It should only wake somebody: while it runs, nothing is followed.
    """

    COUNTED = "guests"

    def __init__(self, changed: Callable[[str], None], uri: str = binding.SYSTEM) -> None:
        self._changed = changed
        self._uri = uri
        self._state: tuple[Mapping[str, G] | None, str] = (None, "not asked yet")
        self._absence_said = False
        self._stopped = threading.Event()
        self._calling = threading.RLock()
        self._session: FollowerSession[G] | None = None

    @abstractmethod
    def _connect(self) -> FollowerSession[G]:
        """A connection that follows. Raises libvirtError."""

    @abstractmethod
    def _difference(self, before: Mapping[str, G], after: Mapping[str, G]) -> str:
        """What happened between two listings, in words; "" for nothing."""

    def start(self) -> None:
        """Begin to follow, in a thread. Once in an object's life."""
        self._state = (None, "libvirt has not answered yet")
        binding.work(self._work, "virt-libvirt", self.stop)

    def stop(self) -> None:
        """Follow no more; returns at once, and no call of `changed` begins afterwards.

        The worker closes the connection by itself, which takes as long as libvirtd hangs.
        """
        self._stopped.set()
        session = self._session
        if session is not None:
            session.note(FollowerNoteKind.OVER)
        if self._calling.acquire(timeout=CALL_PATIENCE):
            self._calling.release()

    @property
    def guests(self) -> Mapping[str, G] | None:
        """The guests by UUID, paused ones too; None while libvirt is not to be had."""
        return None if self._stopped.is_set() else self._state[0]

    @property
    def unavailable(self) -> str:
        """Why `guests` is None; "" otherwise."""
        return "no longer followed" if self._stopped.is_set() else self._state[1]

    def _work(self) -> None:
        delay = FIRST_RETRY
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                self._follow()
            except Exception as error:
                log.exception("libvirt: internal error, please report it")
                self._say_absent(f"internal error: {error!r}")
            if binding.libvirt is None or binding.SafeTree is None:
                return
            if time.monotonic() - began > LONGEST_RETRY:
                delay = FIRST_RETRY
            self._stopped.wait(delay)
            delay = min(2 * delay, LONGEST_RETRY)

    def _follow(self) -> None:
        """Follow one connection until it ends."""
        why = binding.missing(self._uri)
        if why:
            self._say_absent(why)
            return
        try:
            session = self._open()
        except binding.libvirt.libvirtError as error:
            self._say_absent(printable(str(error)))
            return
        if session is None:
            return
        self._session = session
        try:
            self._say_absent(self._relay(session))
        finally:
            self._session = None
            session.close()

    def _open(self) -> FollowerSession[G] | None:
        """A connection with its events; None when stopped meanwhile."""
        binding.run_loop()
        while not binding.opening.acquire(timeout=0.2):
            if self._stopped.is_set():
                return None
        try:
            return self._connect()
        finally:
            binding.opening.release()

    def _relay(self, session: FollowerSession[G]) -> str:
        """Publish what the connection tells until it ends; why it did."""
        news = FollowerChanges(everything=True)
        while not (self._stopped.is_set() or news.over):
            try:
                guests = session.list(news)
            except binding.libvirt.libvirtError as error:
                return session.ended or printable(str(error))
            self._publish(guests)
            news = session.wait()
        return session.ended

    def _publish(self, guests: dict[str, G]) -> None:
        before = self._state[0]
        self._state = (MappingProxyType(guests), "")
        if before is not None:
            reason = self._difference(before, guests)
        elif self._absence_said:
            self._absence_said = False
            reason = "libvirt is back"
            self._log("%s, with %d %s", reason, len(guests), self.COUNTED)
        else:
            reason = "libvirt is there"
        if reason:
            self._call(reason)

    def _say_absent(self, why: str) -> None:
        had = self._state[0] is not None
        self._state = (None, why)
        if not self._absence_said:
            self._absence_said = True
            self._log("libvirt is not to be had: %s", why)
        if had:
            self._call(f"libvirt is gone: {why}")

    def _log(self, text: str, *arguments: object) -> None:
        if not self._stopped.is_set():
            log.info(text, *arguments)

    def _call(self, reason: str) -> None:
        with self._calling:
            if self._stopped.is_set():
                return
            try:
                self._changed(reason)
            except Exception:
                log.exception("libvirt: internal error, please report it")


class Hypervisor(LibvirtFollower[RunningGuest]):
    """Follows the running guests."""

    COUNTED = "running guests"

    def _connect(self) -> FollowerSession[RunningGuest]:
        return _RunningSession(self._uri, follow=True)

    def _difference(
        self, before: Mapping[str, RunningGuest], after: Mapping[str, RunningGuest]
    ) -> str:
        return difference(before, after)


def running_guests(uri: str = binding.SYSTEM) -> dict[str, RunningGuest] | None:
    """The running guests by UUID, asked once, read-only; None if libvirt does not tell soon."""
    return ask_once(_RunningSession, uri)


def ask_once(connect: Callable[[str], FollowerSession[G]], uri: str) -> dict[str, G] | None:
    """What one listing has by UUID; None if libvirt does not tell within ONE_SHOT_PATIENCE."""
    found: list[dict[str, G]] = []

    def ask() -> None:
        with contextlib.suppress(binding.libvirt.libvirtError):
            session = connect(uri)
            try:
                found.append(session.list(FollowerChanges(everything=True)))
            finally:
                session.close()

    if binding.missing(uri):
        return None
    thread = threading.Thread(target=ask, name="virt-libvirt-ask", daemon=True)
    thread.start()
    thread.join(ONE_SHOT_PATIENCE)
    return found[0] if found else None


class FollowerNoteKind(enum.Enum):
    """Kinds of notes that callbacks and stop() leave for the worker."""

    GUESTS = enum.auto()
    BALLOON = enum.auto()
    OVER = enum.auto()


@dataclass
class FollowerChanges:
    """What came since the last listing: balloons by UUID, that all is due, that it is over."""

    balloons: set[str] = dataclasses.field(default_factory=set)
    everything: bool = False
    over: bool = False

    def concerns(self, uuid: str) -> bool:
        """Whether a guest's memory is to be read again."""
        return self.everything or uuid in self.balloons


class FollowerSession(ABC, Generic[G]):
    """One read-only connection. All but the callbacks and `note` is for one thread.

    Raises libvirtError.
    """

    def __init__(self, uri: str, follow: bool = False) -> None:
        self.ended = ""
        self._notes: queue.SimpleQueue[tuple[FollowerNoteKind, str]] = queue.SimpleQueue()
        self._known: dict[tuple[str, int], G] = {}
        self._relist_at = time.monotonic() + RELIST
        self._undo: list[Callable[[], Any]] = []
        binding.quiet()
        self._connection = binding.libvirt.openReadOnly(uri)
        if follow:
            try:
                self._register()
            except binding.libvirt.libvirtError:
                self.close()
                raise

    def _register(self) -> None:
        connection = self._connection
        connection.setKeepAlive(binding.KEEPALIVE, binding.KEEPALIVE_COUNT)
        connection.registerCloseCallback(self._on_close, None)
        self._undo.append(connection.unregisterCloseCallback)
        for event, callback in (
            (binding.libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
            (binding.libvirt.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE, self._on_balloon),
        ):
            number = connection.domainEventRegisterAny(None, event, callback, None)
            self._undo.append(functools.partial(connection.domainEventDeregisterAny, number))

    def _on_close(self, _connection: Any, reason: int, _opaque: Any) -> None:
        self.ended = binding.CLOSED.get(reason, "the connection to libvirtd broke")
        self.note(FollowerNoteKind.OVER)

    def _on_lifecycle(self, *_: Any) -> None:
        self.note(FollowerNoteKind.GUESTS)

    def _on_balloon(self, _connection: Any, domain: Any, *_: Any) -> None:
        self.note(FollowerNoteKind.BALLOON, domain.UUIDString())

    def note(self, kind: FollowerNoteKind, uuid: str = "") -> None:
        """Leave word for the worker; from any thread."""
        self._notes.put((kind, uuid))

    def close(self) -> None:
        """Take back the registrations and close; on a dead connection that fails, and may."""
        for undo in reversed(self._undo):
            with contextlib.suppress(binding.libvirt.libvirtError):
                undo()
        with contextlib.suppress(binding.libvirt.libvirtError):
            self._connection.close()

    def wait(self) -> FollowerChanges:
        """What happens next, with what follows closely, at the latest when a listing is due."""
        news = FollowerChanges()
        until = self._relist_at
        while not news.over:
            try:
                kind, uuid = self._notes.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if kind is FollowerNoteKind.OVER:
                news.over = True
            elif kind is FollowerNoteKind.BALLOON:
                news.balloons.add(uuid)
                until = min(until, time.monotonic() + BALLOON_SETTLE)
            else:
                until = min(until, time.monotonic() + SETTLE)
        if time.monotonic() >= self._relist_at:
            news.everything = True
            self._relist_at = time.monotonic() + RELIST
        return news

    @abstractmethod
    def list(self, news: FollowerChanges) -> dict[str, G]:
        """The guests by UUID. Raises libvirtError."""


class _RunningSession(FollowerSession[RunningGuest]):
    def list(self, news: FollowerChanges) -> dict[str, RunningGuest]:
        """The running guests by UUID; memory is read again where the news concerns it."""
        known = {}
        for domain in self._connection.listAllDomains(
            binding.libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE
        ):
            key = (domain.UUIDString(), domain.ID())
            guest = self._known.get(key)
            if guest is None or news.concerns(guest.uuid):
                guest = self._read(domain, guest)
            if guest is not None:
                known[key] = guest
        self._known = known
        return {guest.uuid: guest for guest in known.values()}

    def _read(self, domain: Any, old: RunningGuest | None) -> RunningGuest | None:
        """A guest asked for what may have changed; None for one that has gone meanwhile."""
        try:
            memory = int(domain.info()[2])
            if old is not None:
                return old if old.memory == memory else dataclasses.replace(old, memory=memory)
            return RunningGuest(
                domain.UUIDString(), domain.name(), memory, _shares_pages(domain, domain.XMLDesc(0))
            )
        except binding.libvirt.libvirtError:
            if self.ended or not self._connection.isAlive():
                raise
            return None


def _shares_pages(domain: Any, xml: str) -> bool:
    try:
        return shares_pages(xml)
    except ValueError as error:
        why = printable(str(error))
        log.warning("guest %s: its XML is not read: %s", printable(domain.name()), why)
        return True
