# SPDX-License-Identifier: GPL-2.0-or-later
"""The one connection to a libvirt: its worker, what that serves, and questions with a deadline.

One `LibvirtWorker` per URI and process, whoever tunes, follows or asks about guests, and whatever
plugin objects TuneD makes. Its thread alone calls libvirt. It lists the guests at every event and
has each reconciler bring them to what is wanted, or read of them what it follows; nobody else ever
waits for libvirt, however long it hangs.
A connection that ends is made anew, and then all is listed again.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol, TypeVar

from tuned_virt.core.later import call_later
from tuned_virt.core.originals import OriginalsError
from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel import timeouts
from tuned_virt.kernel.files import KernelFileError
from tuned_virt.kernel.threads import NoThreadError
from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.connection import QUICK, Changes, Connection, Domain, NoteKind
from tuned_virt.libvirt_api.errors import LibvirtError, NoAnswer, Unanswered
from tuned_virt.model.guest import printable

log = logging.getLogger("tuned")

T = TypeVar("T")

SILENT = "libvirtd does not answer"

FIRST_RETRY, LONGEST_RETRY = 1.0, 10.0
"""Seconds between attempts to reach libvirt: the first, doubled each time, and the longest."""


@dataclass(frozen=True)
class GuestsView:
    """The running guests by UUID, and the connection to tune them with.

    defined: all guests that are listed: those that do not run too where a reconciler wants them
    """

    connection: Connection
    guests: Mapping[str, Domain]
    defined: Mapping[str, Domain] = field(default_factory=dict)
    changes: Changes = field(default_factory=Changes)


class Reconciler(Protocol):
    """What tunes or follows guests, called by the worker alone.

    defined: whether it wants to see guests that do not run
    """

    defined: bool

    def reconcile(self, view: GuestsView) -> float | None:
        """Bring the guests to what is wanted; seconds until it has to look again by itself.

        May raise LibvirtError once the connection has ended.
        """

    def unreachable(self, why: str) -> None:
        """libvirt is unavailable, and why; said again at each attempt."""


class LibvirtWorker:
    """Serves reconcilers with one connection. All its methods may be called from any thread."""

    UNASKED = "libvirt has not been queried yet"

    def __init__(self, uri: str, read_only: bool = False) -> None:
        self.uri = uri
        self._read_only = read_only
        self._unavailable = self.UNASKED
        self._refused = ""  # why no thread could be had last
        self._reconcilers: list[Reconciler] = []
        self._lock = threading.Lock()
        self._notes: queue.SimpleQueue[tuple[NoteKind, str]] = queue.SimpleQueue()
        self._questions: queue.SimpleQueue[Callable[[GuestsView], None]] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        self._link: Connection | None = None
        self._opening_since: float | None = None

    def register(self, reconciler: Reconciler, first: bool = False) -> None:
        """Have a reconciler's `reconcile` called from now on, and soon once.

        first: before those that are not, as it tunes guests that others only read
        """
        with self._lock:
            if reconciler not in self._reconcilers:
                known = self._reconcilers
                self._reconcilers = [reconciler, *known] if first else [*known, reconciler]
        if not self._is_working():
            call_later(self._is_working)
        self.wake()

    def _is_working(self) -> bool:
        """Have a thread work, where there is anything to do and it can be had."""
        with self._lock:
            working = self._worker is not None and self._worker.is_alive()
            if working or not self._reconcilers:
                return True
            try:
                self._worker = binding.work(self._work, "virt-libvirt", self.close)
            except NoThreadError as error:
                self._unavailable = self._refused = str(error)
                return False
            if self._unavailable == self._refused:
                self._unavailable = self.UNASKED
            return True

    def unregister(self, reconciler: Reconciler) -> None:
        """Serve it no more; with the last one the connection is closed and the worker ends."""
        with self._lock:
            self._reconcilers = [one for one in self._reconcilers if one is not reconciler]
        self.wake()

    def close(self) -> None:
        """Serve nobody any more."""
        with self._lock:
            self._reconcilers = []
        self.wake()

    def wake(self) -> None:
        """Have all reconcilers look again, soon."""
        self._notes.put((NoteKind.WAKE, ""))

    @property
    def unavailable(self) -> str:
        """Why libvirt is unavailable; "" while it is."""
        return self._unavailable

    @property
    def unresponsive(self) -> bool:
        """Whether one call has gone unanswered for long."""
        link, since = self._link, self._opening_since
        if link is not None:
            return link.unresponsive
        return since is not None and time.monotonic() - since > QUICK

    def ask(self, question: Callable[[GuestsView], T], patience: float) -> T:
        """The answer to a question, found in the worker. Raises Unanswered after `patience` s.

        Not waited for a libvirt that is not there or hangs.
        """
        if self._unavailable:
            raise Unanswered(self._unavailable)
        return self._answered(question, patience, lambda: self.unresponsive)

    def ask_patiently(self, question: Callable[[GuestsView], T], patience: float) -> T:
        """As `ask`, of a libvirt that may be connected to first, or be slow."""
        deadline = time.monotonic() + patience
        while self._unavailable == self.UNASKED and time.monotonic() < deadline:
            time.sleep(0.005)
        if self._unavailable == self.UNASKED:
            raise NoAnswer(SILENT)
        if self._unavailable:
            raise Unanswered(self._unavailable)
        return self._answered(question, deadline - time.monotonic(), lambda: False)

    def _answered(
        self, question: Callable[[GuestsView], T], patience: float, given_up: Callable[[], bool]
    ) -> T:
        answers: queue.SimpleQueue[T | Exception] = queue.SimpleQueue()
        deadline = time.monotonic() + patience

        def answer(view: GuestsView) -> None:
            if time.monotonic() < deadline:
                try:
                    answers.put(question(view))
                except Exception as error:
                    answers.put(error)

        self._questions.put(answer)
        self._notes.put((NoteKind.QUESTION, ""))
        while True:
            try:
                found = answers.get(timeout=0.05)
            except queue.Empty:
                if self._unavailable:
                    raise Unanswered(self._unavailable) from None
                if given_up() or time.monotonic() > deadline:
                    raise NoAnswer(SILENT) from None
                continue
            if isinstance(found, Exception):
                raise NoAnswer(printable(str(found)))
            return found

    # --- the worker -------------------------------------------------------------------------

    def _work(self) -> None:
        delay = FIRST_RETRY
        while self._wanted():
            began = time.monotonic()
            try:
                why = self._connected()
            except (KernelFileError, OriginalsError, LibvirtError) as error:
                log.error("libvirt: %s; the guests are checked again", error)
                why = str(error)
            except Exception as error:
                log.exception("libvirt: internal error, please report it")
                why = f"internal error: {error!r}"
            if not self._wanted():
                return
            if not why:
                continue  # it was closed for want of reconcilers, and one has come since
            self._say_unavailable(why)
            if binding.not_installed():
                with self._lock:
                    self._worker = None  # until somebody registers
                return
            if time.monotonic() - began > LONGEST_RETRY:
                delay = FIRST_RETRY
            self._rest(delay)
            delay = min(2 * delay, LONGEST_RETRY)

    def _wanted(self) -> bool:
        with self._lock:
            if not self._reconcilers:
                self._worker = None
                self._unavailable = self.UNASKED
                return False
            return True

    def _rest(self, seconds: float) -> None:
        """Wait for the next attempt, or until nobody is served any more."""
        until = time.monotonic() + seconds
        while self._reconcilers and (left := until - time.monotonic()) > 0:
            try:
                self._notes.get(timeout=left)
            except queue.Empty:
                return

    def _connected(self) -> str:
        """Serve with one connection until it ends; why it did, or could not be made.

        "" where nobody was served any more.
        """
        why = binding.missing(self.uri)
        if why:
            return why
        self._opening_since = time.monotonic()
        try:
            if not self._read_only:
                binding.run_loop()
            while not self._notes.empty():
                self._notes.get()  # the first listing will have seen what they tell
            link = Connection(self.uri, self._notes, self._read_only)
        except LibvirtError as error:
            return str(error)
        finally:
            self._opening_since = None
        self._link = link
        try:
            return self._serve(link)
        finally:
            self._link = None
            link.close()

    def _serve(self, link: Connection) -> str:
        changes = Changes(everything=True)
        while self._reconcilers and not changes.over:
            try:
                view = self._look(link, changes)
                due = [one.reconcile(view) for one in self._reconcilers]
                self._answer(view)
            except LibvirtError as error:
                if link.alive():
                    raise
                return link.ended or str(error)
            changes = self._wait(
                link, min((at for at in due if at is not None), default=None), view
            )
        return link.ended or ("the connection to libvirtd was lost" if changes.over else "")

    def _look(self, link: Connection, changes: Changes) -> GuestsView:
        found = link.list(changes, any(one.defined for one in self._reconcilers))
        running = {uuid: guest for uuid, guest in found.items() if guest.running}
        self._say_available(len(running))
        return GuestsView(link, MappingProxyType(running), MappingProxyType(found), changes)

    def _wait(self, link: Connection, due: float | None, view: GuestsView) -> Changes:
        """What happens next; questions are answered meanwhile."""
        while True:
            changes = link.wait(due)
            self._answer(view)
            if not changes.questions_only:
                return changes

    def _answer(self, view: GuestsView) -> None:
        while not self._questions.empty():
            self._questions.get()(view)

    def _say_available(self, guests: int) -> None:
        if self._unavailable:
            again = self._unavailable != self.UNASKED
            self._unavailable = ""
            if again:
                log.info("libvirt is available again, with %d running guests", guests)

    def _say_unavailable(self, why: str) -> None:
        if self._unavailable in ("", self.UNASKED) and not self._read_only:
            log.info("libvirt is unavailable: %s", why)
        self._unavailable = why
        for reconciler in self._reconcilers:
            reconciler.unreachable(why)


_workers: dict[str, LibvirtWorker] = {}
_workers_lock = threading.Lock()


def libvirt_worker(uri: str = binding.SYSTEM) -> LibvirtWorker:
    """The process's one worker for a URI."""
    with _workers_lock:
        if uri not in _workers:
            _workers[uri] = LibvirtWorker(uri)
        return _workers[uri]


class OneShotClient:
    """Has a worker connect, for somebody who only asks."""

    def __init__(self, worker: LibvirtWorker, defined: bool = False) -> None:
        self.defined = defined
        self._worker = worker
        worker.register(self)

    def __enter__(self) -> OneShotClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.unregister(self)

    def reconcile(self, view: GuestsView) -> float | None:
        """Nothing of its own."""
        return None

    def unreachable(self, why: str) -> None:
        """Nothing of its own."""

    def ask(self, question: Callable[[GuestsView], T], patience: float) -> T:
        """The answer. Raises Unanswered."""
        return self._worker.ask_patiently(question, patience)


def ask_once(
    question: Callable[[GuestsView], T], uri: str = binding.SYSTEM, defined: bool = False
) -> T | None:
    """The answer of a read-only connection of its own; None if libvirt does not tell soon."""
    if binding.missing(uri):
        return None
    with OneShotClient(LibvirtWorker(uri, read_only=True), defined) as client:
        try:
            return client.ask(question, timeouts.ONE_SHOT)
        except Unanswered:
            return None


def descriptions(uri: str = binding.SYSTEM) -> tuple[str, dict[str, str]] | None:
    """The capabilities XML and the running guests' XML by name; None if libvirt does not tell."""
    return ask_once(
        lambda view: (
            view.connection.capabilities(),
            {guest.name: guest.xml for guest in view.guests.values()},
        ),
        uri,
    )
