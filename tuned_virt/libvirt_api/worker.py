# SPDX-License-Identifier: GPL-2.0-or-later
"""The one connection that tunes guests: its worker, what it serves, and questions with a deadline.

One `LibvirtWorker` per URI and process, however many plugins tune guests, and whatever plugin
objects TuneD makes. Its thread alone calls libvirt. It lists the running guests at every event and
has each reconciler bring them to what is wanted; nobody else ever waits for libvirt, however long
it hangs.
A connection that ends is made anew, and then all is listed again.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, TypeVar

from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.connection import QUICK, Changes, Connection, Domain, NoteKind
from tuned_virt.model.guest import printable

log = logging.getLogger("tuned")

T = TypeVar("T")

FIRST_RETRY, LONGEST_RETRY = 1.0, 10.0
"""Seconds between attempts to reach libvirt: the first, doubled each time, and the longest."""


class Unanswered(Exception):
    """libvirt did not answer a question in time, or is not to be had: the message says which."""


@dataclass(frozen=True)
class GuestsView:
    """The running guests by UUID, and the connection to tune them with."""

    connection: Connection
    guests: Mapping[str, Domain]


class Reconciler(Protocol):
    """What one plugin does to guests, called by the worker alone."""

    def reconcile(self, view: GuestsView) -> float | None:
        """Bring the guests to what is wanted; seconds until it has to look again by itself.

        May raise libvirtError once the connection has ended.
        """

    def unreachable(self, why: str) -> None:
        """libvirt is not to be had, and why; said again at each attempt."""


class LibvirtWorker:
    """Serves reconcilers with one connection. All its methods may be called from any thread."""

    UNASKED = "libvirt is not asked yet"

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._unavailable = self.UNASKED
        self._reconcilers: list[Reconciler] = []
        self._lock = threading.Lock()
        self._notes: queue.SimpleQueue[tuple[NoteKind, str]] = queue.SimpleQueue()
        self._questions: queue.SimpleQueue[Callable[[GuestsView], None]] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        self._link: Connection | None = None
        self._opening_since: float | None = None

    def register(self, reconciler: Reconciler) -> None:
        """Have a reconciler's `reconcile` called from now on, and soon once."""
        with self._lock:
            if reconciler not in self._reconcilers:
                self._reconcilers = [*self._reconcilers, reconciler]
            if self._worker is None or not self._worker.is_alive():
                self._worker = binding.work(self._work, "virt-control", self.close)
        self.wake()

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
        """Why libvirt is not to be had; "" while it is."""
        return self._unavailable

    @property
    def unresponsive(self) -> bool:
        """Whether one call has gone unanswered for long."""
        link, since = self._link, self._opening_since
        if link is not None:
            return link.unresponsive
        return since is not None and time.monotonic() - since > QUICK

    def ask(self, question: Callable[[GuestsView], T], patience: float) -> T:
        """The answer to a question, found in the worker. Raises Unanswered after `patience` s."""
        answers: queue.SimpleQueue[T | Exception] = queue.SimpleQueue()
        deadline = time.monotonic() + patience

        def answer(view: GuestsView) -> None:
            if time.monotonic() < deadline:
                try:
                    answers.put(question(view))
                except Exception as error:
                    answers.put(error)

        if self._unavailable:
            raise Unanswered(self._unavailable)
        self._questions.put(answer)
        self._notes.put((NoteKind.QUESTION, ""))
        while True:
            try:
                found = answers.get(timeout=0.05)
            except queue.Empty:
                if self._unavailable or self.unresponsive or time.monotonic() > deadline:
                    raise Unanswered(self._unavailable or "libvirtd does not answer") from None
                continue
            if isinstance(found, Exception):
                raise Unanswered(printable(str(found)))
            return found

    def ask_once_there(self, question: Callable[[GuestsView], T], patience: float) -> T:
        """As `ask`, and a connection that is still being made is waited for."""
        deadline = time.monotonic() + patience
        while self._unavailable == self.UNASKED and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.ask(question, patience)

    # --- the worker -------------------------------------------------------------------------

    def _work(self) -> None:
        delay = FIRST_RETRY
        while self._wanted():
            began = time.monotonic()
            try:
                why = self._connected()
            except Exception as error:
                log.exception("libvirt: internal error, please report it")
                why = f"internal error: {error!r}"
            if not self._wanted():
                return
            if not why:
                continue  # it was closed for want of reconcilers, and one has come since
            self._say_unavailable(why)
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
            binding.run_loop()
            link = Connection(self.uri, self._notes)
        except binding.libvirt.libvirtError as error:
            return printable(str(error))
        finally:
            self._opening_since = None
        self._link = link
        try:
            return self._serve(link)
        finally:
            self._link = None
            link.close()

    def _serve(self, link: Connection) -> str:
        news = Changes(everything=True)
        while self._reconcilers and not news.over:
            try:
                view = GuestsView(link, MappingProxyType(link.list(news)))
                self._say_available(len(view.guests))
                due = [one.reconcile(view) for one in self._reconcilers]
                self._answer(view)
                link.idle()
            except binding.libvirt.libvirtError as error:
                if link.alive():
                    raise
                return link.ended or printable(str(error))
            news = self._wait(link, min((at for at in due if at is not None), default=None), view)
        return link.ended or ("the connection to libvirtd broke" if news.over else "")

    def _wait(self, link: Connection, due: float | None, view: GuestsView) -> Changes:
        """What happens next; questions are answered meanwhile."""
        while True:
            news = link.wait(due)
            self._answer(view)
            link.idle()
            if not news.questions_only:
                return news

    def _answer(self, view: GuestsView) -> None:
        while not self._questions.empty():
            self._questions.get()(view)

    def _say_available(self, guests: int) -> None:
        if self._unavailable:
            again = self._unavailable != self.UNASKED
            self._unavailable = ""
            if again:
                log.info("libvirt is back, with %d running guests", guests)

    def _say_unavailable(self, why: str) -> None:
        if self._unavailable != why:
            log.info("libvirt is not to be had: %s", why)
            self._unavailable = why
        for reconciler in self._reconcilers:
            reconciler.unreachable(why)


_controls: dict[str, LibvirtWorker] = {}
_controls_lock = threading.Lock()


def libvirt_worker(uri: str = binding.SYSTEM) -> LibvirtWorker:
    """The process's one Control for a URI."""
    with _controls_lock:
        if uri not in _controls:
            _controls[uri] = LibvirtWorker(uri)
        return _controls[uri]
