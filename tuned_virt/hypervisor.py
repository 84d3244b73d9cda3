"""Running guests as libvirt knows them, followed without ever waiting for libvirt.

This module alone imports libvirt, which hosts may lack. Three kinds of threads: the caller's, which
only starts and stops; one that runs libvirt's event loop for the life of the process (it shares
GLib's default context with TuneD's D-Bus thread, so it cannot be joined, and callbacks may come in
either: they only leave a note); and one worker for each `Hypervisor`, which alone asks libvirt and
so alone waits while libvirtd hangs.

Memory comes from `virDomainGetInfo`, not from the balloon statistics: those ask QEMU itself, and
one stopped QEMU would then keep all guests from being listed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tuned_virt.guest import printable

try:
    import libvirt
except ImportError:
    libvirt = None

try:
    import defusedxml.ElementTree as SafeTree  # type: ignore[import-untyped]
except ImportError:
    SafeTree = None

log = logging.getLogger("tuned")

SYSTEM = "qemu:///system"

SOCKETS = ("/run/libvirt/libvirt-sock-ro", "/run/libvirt/virtqemud-sock-ro")
"""One of them is there wherever SYSTEM can be opened."""

FIRST_RETRY, LONGEST_RETRY = 1.0, 30.0
"""Seconds between attempts to reach libvirt: the first, doubled each time, and the longest."""

SETTLE = 0.05
"""Seconds in which more starts and stops are waited for before guests are listed."""

BALLOON_SETTLE = 1.0
"""The same when only balloons change."""

RELIST = 60.0
"""Seconds after which guests are listed and their memory is read also without events."""

KEEPALIVE, KEEPALIVE_COUNT = 5, 3
"""Seconds between questions to libvirtd, and how many without answer end the connection."""

CALL_PATIENCE = 0.03
"""Seconds that stop() waits for a call of `changed` that has begun."""

ONE_SHOT_PATIENCE = 5.0
"""Seconds that running_guests waits for libvirt."""

LOOP_WAKES = 500
"""Milliseconds between wakes of the event loop; without them it misses what other threads add."""

NAMED = 3
"""Most guests that one reason names."""

CLOSED = {1: "libvirtd closed the connection", 2: "libvirtd no longer answers"}
"""What libvirt's reasons for a closed connection mean (virConnectCloseReason)."""


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


class Hypervisor:
    """Follows libvirt's running guests in threads of its own; never blocks its caller.

    `changed(reason)` is called from the worker thread once `guests` shows the change, once for all
    changes of a listing. It should only wake somebody: while it runs, nothing is followed.
    """

    def __init__(self, changed: Callable[[str], None], uri: str = SYSTEM) -> None:
        self._changed = changed
        self._uri = uri
        self._state: tuple[Mapping[str, RunningGuest] | None, str] = (None, "not asked yet")
        self._absence_said = False
        self._stopped = threading.Event()
        self._calling = threading.RLock()
        self._session: _Session | None = None

    def start(self) -> None:
        """Begin to follow, in a thread. Once in an object's life."""
        self._state = (None, "libvirt has not answered yet")
        threading.Thread(target=self._work, name="virt-libvirt", daemon=True).start()

    def stop(self) -> None:
        """Follow no more; returns at once, and no call of `changed` begins afterwards.

        The worker closes the connection by itself, which takes as long as libvirtd hangs.
        """
        self._stopped.set()
        session = self._session
        if session is not None:
            session.note(Kind.OVER)
        if self._calling.acquire(timeout=CALL_PATIENCE):
            self._calling.release()

    @property
    def guests(self) -> Mapping[str, RunningGuest] | None:
        """The running guests by UUID, paused ones too; None while libvirt is not to be had."""
        return None if self._stopped.is_set() else self._state[0]

    @property
    def absence(self) -> str:
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
            if libvirt is None or SafeTree is None:
                return
            if time.monotonic() - began > LONGEST_RETRY:
                delay = FIRST_RETRY
            self._stopped.wait(delay)
            delay = min(2 * delay, LONGEST_RETRY)

    def _follow(self) -> None:
        """Follow one connection until it ends."""
        why = missing(self._uri)
        if why:
            self._say_absent(why)
            return
        try:
            session = self._open()
        except libvirt.libvirtError as error:
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

    def _open(self) -> _Session | None:
        """A connection with its events; None when stopped meanwhile."""
        _run_loop()
        while not _opening.acquire(timeout=0.2):
            if self._stopped.is_set():
                return None
        try:
            return _Session(self._uri, follow=True)
        finally:
            _opening.release()

    def _relay(self, session: _Session) -> str:
        """Publish what the connection tells until it ends; why it did."""
        news = News(everything=True)
        while not (self._stopped.is_set() or news.over):
            try:
                guests = session.list(news)
            except libvirt.libvirtError as error:
                return session.ended or printable(str(error))
            self._publish(guests)
            news = session.wait()
        return session.ended

    def _publish(self, guests: dict[str, RunningGuest]) -> None:
        before = self._state[0]
        self._state = (MappingProxyType(guests), "")
        if before is not None:
            reason = difference(before, guests)
        elif self._absence_said:
            self._absence_said = False
            reason = "libvirt is back"
            self._log("%s, with %d running guests", reason, len(guests))
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


def running_guests(uri: str = SYSTEM) -> dict[str, RunningGuest] | None:
    """The running guests by UUID, asked once, read-only; None if libvirt does not tell soon."""
    found: list[dict[str, RunningGuest]] = []

    def ask() -> None:
        with contextlib.suppress(libvirt.libvirtError):
            session = _Session(uri)
            try:
                found.append(session.list(News(everything=True)))
            finally:
                session.close()

    if missing(uri):
        return None
    thread = threading.Thread(target=ask, name="virt-libvirt-ask", daemon=True)
    thread.start()
    thread.join(ONE_SHOT_PATIENCE)
    return found[0] if found else None


def missing(uri: str = SYSTEM) -> str:
    """What this machine lacks to ask libvirt, found out without asking it; "" for nothing."""
    if libvirt is None:
        return "python3-libvirt is not installed"
    if SafeTree is None:
        return "python3-defusedxml is not installed"
    if uri == SYSTEM and not any(map(os.path.exists, SOCKETS)):
        return f"there is no libvirt socket ({' or '.join(SOCKETS)})"
    return ""


def shares_pages(xml: str) -> bool:
    """Whether a guest's XML lets the kernel merge its pages.

    Raises ValueError for XML that is none, or that brings a DTD or entities.
    """
    try:
        root = SafeTree.fromstring(xml, forbid_dtd=True)
    except SafeTree.ParseError as error:
        raise ValueError(str(error)) from error
    return root.find("memoryBacking/nosharepages") is None


def difference(
    before: Mapping[str, RunningGuest], after: Mapping[str, RunningGuest], named: int = NAMED
) -> str:
    """What happened between two listings, in words; "" for nothing.

    Another object for the same guest, with nothing else changed, is a restart.
    """
    changes = [*_differences(before, after)]
    more = f" and {len(changes) - named} more changes" if len(changes) > named else ""
    return ", ".join(changes[:named]) + more


def _differences(
    before: Mapping[str, RunningGuest], after: Mapping[str, RunningGuest]
) -> Iterator[str]:
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


class Kind(enum.Enum):
    """Kinds of notes that callbacks and stop() leave for the worker."""

    GUESTS = enum.auto()
    BALLOON = enum.auto()
    OVER = enum.auto()


@dataclass
class News:
    """What came since the last listing: balloons by UUID, that all is due, that it is over."""

    balloons: set[str] = dataclasses.field(default_factory=set)
    everything: bool = False
    over: bool = False

    def concerns(self, uuid: str) -> bool:
        """Whether a guest's memory is to be read again."""
        return self.everything or uuid in self.balloons


class _Session:
    """One read-only connection. All but the callbacks and `note` is for one thread.

    Raises libvirtError.
    """

    def __init__(self, uri: str, follow: bool = False) -> None:
        self.ended = ""
        self._notes: queue.SimpleQueue[tuple[Kind, str]] = queue.SimpleQueue()
        self._known: dict[tuple[str, int], RunningGuest] = {}
        self._relist_at = time.monotonic() + RELIST
        self._undo: list[Callable[[], Any]] = []
        _quiet()
        self._connection = libvirt.openReadOnly(uri)
        if follow:
            try:
                self._register()
            except libvirt.libvirtError:
                self.close()
                raise

    def _register(self) -> None:
        connection = self._connection
        connection.setKeepAlive(KEEPALIVE, KEEPALIVE_COUNT)
        connection.registerCloseCallback(self._on_close, None)
        self._undo.append(connection.unregisterCloseCallback)
        for event, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE, self._on_balloon),
        ):
            number = connection.domainEventRegisterAny(None, event, callback, None)
            self._undo.append(functools.partial(connection.domainEventDeregisterAny, number))

    def _on_close(self, _connection: Any, reason: int, _opaque: Any) -> None:
        self.ended = CLOSED.get(reason, "the connection to libvirtd broke")
        self.note(Kind.OVER)

    def _on_lifecycle(self, *_: Any) -> None:
        self.note(Kind.GUESTS)

    def _on_balloon(self, _connection: Any, domain: Any, *_: Any) -> None:
        self.note(Kind.BALLOON, domain.UUIDString())

    def note(self, kind: Kind, uuid: str = "") -> None:
        """Leave word for the worker; from any thread."""
        self._notes.put((kind, uuid))

    def close(self) -> None:
        """Take back the registrations and close; on a dead connection that fails, and may."""
        for undo in reversed(self._undo):
            with contextlib.suppress(libvirt.libvirtError):
                undo()
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.close()

    def wait(self) -> News:
        """What happens next, with what follows closely, at the latest when a listing is due."""
        news = News()
        until = self._relist_at
        while not news.over:
            try:
                kind, uuid = self._notes.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if kind is Kind.OVER:
                news.over = True
            elif kind is Kind.BALLOON:
                news.balloons.add(uuid)
                until = min(until, time.monotonic() + BALLOON_SETTLE)
            else:
                until = min(until, time.monotonic() + SETTLE)
        if time.monotonic() >= self._relist_at:
            news.everything = True
            self._relist_at = time.monotonic() + RELIST
        return news

    def list(self, news: News) -> dict[str, RunningGuest]:
        """The running guests by UUID; memory is read again where the news concerns it."""
        known = {}
        for domain in self._connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
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
        except libvirt.libvirtError:
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


_opening = threading.Lock()
"""Held while a connection is opened: nothing can end that while libvirtd hangs, so that of many
Hypervisors started and stopped meanwhile only one keeps a thread."""

_loop_lock = threading.Lock()
_loop: threading.Thread | None = None


def _quiet() -> None:
    """Keep libvirt from writing its errors to stderr; they are raised anyhow."""
    libvirt.registerErrorHandler(lambda *_: None, None)


def _run_loop() -> None:
    """Run libvirt's default event loop, in one thread for the life of the process."""
    global _loop  # noqa: PLW0603 - libvirt has one per process
    with _loop_lock:
        if _loop is None:
            libvirt.virEventRegisterDefaultImpl()
            libvirt.virEventAddTimeout(LOOP_WAKES, lambda *_: None, None)
            _loop = threading.Thread(target=_loop_forever, name="virt-libvirt-loop", daemon=True)
            _loop.start()


def _loop_forever() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except Exception:
            log.exception("libvirt's event loop")
            time.sleep(FIRST_RETRY)
