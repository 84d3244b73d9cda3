# SPDX-License-Identifier: GPL-2.0-or-later
"""From claims to guests: what plugins want of each guest, kept while TuneD's objects come and go.

TuneD makes a new plugin object at every profile switch, applies and undoes it in its own threads,
and waits for that inside D-Bus calls. So a plugin only says what it claims: which guest, under
which policy. The process's one `GuestManager` of a tuner and URI has libvirt's worker bring the
guests to it, and those that nobody claims any more back to what they were. What cannot be done now,
because libvirt hangs or is gone, is done when it is back.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from tuned_virt.core.deferred_restore import DeferredRestore
from tuned_virt.core.engine import Finding, Result
from tuned_virt.core.originals import shared_originals
from tuned_virt.core.plan import Values
from tuned_virt.core.tuner import Registered
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.guests.originals import GuestOriginals, O
from tuned_virt.guests.restore import GuestRestore
from tuned_virt.kernel import timeouts
from tuned_virt.kernel.files import KernelFS
from tuned_virt.kernel.threads import NoThreadError
from tuned_virt.libvirt_api.connection import Connection, Domain
from tuned_virt.libvirt_api.worker import GuestsView, LibvirtWorker, libvirt_worker

log = logging.getLogger("tuned")

P = TypeVar("P")

Run = tuple[str, int]
"""A guest's UUID and libvirt's number of this run."""


@dataclass(frozen=True)
class Claim(Generic[P]):
    """What is wanted of one guest, which TuneD knows as the device."""

    device: str
    policy: P


class GuestController(ABC, Generic[P]):
    """What one tuner does to one libvirt's guests; all but `findings` is for libvirt's worker."""

    active_since = math.inf
    """Seconds after boot at which a profile was activated that has the plugin."""

    @abstractmethod
    def adjust(self, view: GuestsView, claims: Mapping[Run, Claim[P]] | None) -> float | None:
        """Bring guests to what is claimed and others back; seconds until it must look again.

        None: no plugin is applied; {}: one is, and claims none of the guests that run now.
        """

    @abstractmethod
    def findings(
        self, claims: Mapping[Run, Claim[P]], asked: LibvirtWorker, ignore_missing: bool
    ) -> Iterable[Finding]:
        """What verify says of the claims. In TuneD's thread: may not take a second."""

    @abstractmethod
    def defer_restore(self, why: str) -> None:
        """Nothing is wanted any more, and libvirt is unavailable: what is kept is pending."""

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Whether nothing is left to put back."""

    def rest(self) -> None:
        """Nobody is served any more: nothing of libvirt's is held on to, which would stay open."""


class GuestTuner(GuestRestore[O], Generic[P, O]):
    """What a guest plugin tunes: its options, what carries them out, and the way back."""

    @abstractmethod
    def guests(self, uri: str) -> GuestController[P]:
        """What carries policies out on the guests of a libvirt."""

    def notes(self, policies: Iterable[P], running: Collection[tuple[str, str]]) -> Iterable[str]:
        """What verify says besides of the machine, and of sections' policies for the guests that
        run, by name and UUID."""
        return ()

    def files(self, policies: Iterable[P]) -> Values:
        """Kernel files that TuneD's own plugins may set too, with the value of sections'
        policies."""
        return {}

    def uris(self) -> Iterable[str]:
        """Each libvirt that originals are kept of."""
        return GuestOriginals(self.name, self.original, shared_originals()).uris()

    def keeps(self) -> bool:
        """Whether an original is kept of any guest, or of the kernel for them."""
        others = (one.name for one in Registered.classes.values() if one.part_of == self.name)
        kept = shared_originals()
        return any(kept.record(name).originals for name in (self.name, *others))

    def put_back(self, view: GuestsView, fs: KernelFS, kept: O) -> str:
        """See `GuestRestore`."""
        active = view.guests.get(kept.uuid)
        if active is None or active.id != kept.id:
            return ""
        refused = self.put_back_run(view.connection, active, fs, kept)
        return "; ".join(f"{what}: {why}" for what, why in refused.items())

    @abstractmethod
    def put_back_run(
        self, link: Connection, active: Domain, fs: KernelFS, kept: O
    ) -> Mapping[str, str]:
        """The same of the run that is kept, which goes on; what is refused, and why."""


class GuestListener(Protocol):
    """A plugin object of TuneD's."""

    def guests_changed(self, guests: Mapping[str, Domain]) -> Mapping[Run, Claim[Any]] | None:
        """The running guests by UUID, from libvirt's worker; what it claims of them, if it can say
        so now."""


class GuestManager(Generic[P]):
    """Serves one tuner on one libvirt. All its methods may be called from any thread."""

    defined = False

    def __init__(self, tuner: GuestTuner[P, Any], uri: str) -> None:
        self.tuner = tuner
        self.control = libvirt_worker(uri)
        self._made: GuestController[P] | None = None
        self._active_since = math.inf
        self._lock = threading.Lock()
        self._listener: GuestListener | None = None
        self._claims: Mapping[Run, Claim[P]] | None = None
        self._starting = False
        self._wanted = 0
        self._reached = threading.Condition()
        self._done = 0
        self._listed: Mapping[str, Domain] | None = None
        self._deferred = DeferredRestore(tuner.name, self._release)

    def _guests(self) -> GuestController[P]:
        """What tunes the guests, made once there is libvirt to ask, or something to put back."""
        if self._made is None:
            self._made = self.tuner.guests(self.control.uri)
            self._made.active_since = self._active_since
        return self._made

    def _defer_restore(self, why: str) -> None:
        if not self.idle:
            self._guests().defer_restore(why)

    # --- from TuneD -------------------------------------------------------------------------

    def attach(self, listener: GuestListener) -> Mapping[str, Domain]:
        """Tell a plugin of guests from now on; the running ones, none if libvirt is not there."""
        with self._lock:
            self._listener = listener
            self._starting = self._claims is None  # what a killed TuneD left may be claimed again
            if self._starting:
                self._active_since = time.clock_gettime(time.CLOCK_BOOTTIME)
                if self._made is not None:
                    self._made.active_since = self._active_since
        self._turn()
        deadline = time.monotonic() + timeouts.FIRST_LISTING
        self._until(lambda: self._listed is not None, deadline)
        return self._listed or {}

    def detach(self, listener: GuestListener) -> None:
        """Tell it no more."""
        with self._lock:
            if self._listener is listener:
                self._listener = None
                self._starting = False
        self._turn()

    def restore_unclaimed(self) -> None:
        """Put back what is kept and nobody claims."""
        self._turn()

    def claim(self, claims: Mapping[Run, Claim[P]]) -> None:
        """All that is wanted from now on; cancels a release that was put off."""
        self._set(dict(claims))

    def release(self, settled: threading.Event | None = None) -> None:
        """Nothing is wanted any more; with an event, unless a claim comes before it is set."""
        if settled is None:
            self._set(None)
            return
        try:
            self._deferred.schedule(settled)
        except NoThreadError:
            self._set(None)

    def _release(self) -> None:
        self._set(None)
        self.settle(timeouts.GUESTS_RESTORED)

    def _set(self, claims: Mapping[Run, Claim[P]] | None) -> None:
        self._deferred.cancel()
        with self._lock:
            self._claims = claims
            self._starting = False
        self._turn()

    def settle(self, patience: float = timeouts.APPLY) -> bool:
        """Wait until all that was claimed is carried out; False if it takes longer."""
        wanted = self._wanted
        done = self._until(lambda: self._done >= wanted, time.monotonic() + patience)
        if not done and self._claims is None:
            self._defer_restore(self.control.unavailable or "libvirtd has not answered yet")
        return done

    @property
    def idle(self) -> bool:
        """Whether nothing is left to put back."""
        if self._made is None:
            return not self.tuner.keeps()
        return self._made.idle

    def findings(self, runs: Iterable[Run], ignore_missing: bool) -> list[Finding]:
        """What verify says of some of the claimed guests."""
        known = self._claims or {}
        claims = {run: known[run] for run in runs if run in known}
        return list(self._guests().findings(claims, self.control, ignore_missing))

    def unavailable(self) -> list[Finding]:
        """What verify says where libvirt is unavailable: not a failure, others' settings hold."""
        why = self.control.unavailable or (
            "libvirtd does not answer" if self.control.unresponsive else ""
        )
        text = f"{self.tuner.name}: guests are not managed: {why}"
        return [Finding(Result.NOTE, text)] if why else []

    def _turn(self) -> None:
        with self._lock:
            self._wanted += 1
        self.control.register(self, first=True)

    def _until(self, condition: Any, deadline: float) -> bool:
        """Wait for the worker; not for a libvirt that is not there or hangs."""
        with self._reached:
            while not condition():
                unavailable = self.control.unavailable
                gone = unavailable not in ("", LibvirtWorker.UNASKED) or self.control.unresponsive
                if gone or time.monotonic() > deadline:
                    return False
                self._reached.wait(0.02)
        return True

    # --- from libvirt's worker --------------------------------------------------------------

    def reconcile(self, view: GuestsView) -> float | None:
        """See `worker.Reconciler`."""
        self._listed = view.guests
        with self._lock:
            listener, before = self._listener, self._wanted
        said = listener.guests_changed(view.guests) if listener else None
        with self._lock:
            wanted = self._wanted
            if said is not None and wanted == before and said != self._claims:
                self._claims, self._starting = said, False  # else what came since is newer
            claims, starting = self._claims, self._starting
        due = None if starting else self._guests().adjust(view, claims)
        with self._reached:
            self._done = wanted
            self._reached.notify_all()
        self._leave_if_done(wanted)
        return due

    def unreachable(self, why: str) -> None:
        """See `worker.Reconciler`."""
        self._listed = None
        with self._reached:
            self._reached.notify_all()
        if self._claims is None:
            self._defer_restore(why)
        self._leave_if_done(self._wanted)

    def _leave_if_done(self, wanted: int) -> None:
        with self._lock:
            busy = (
                self._listener or self._claims is not None or not self.idle or self._wanted > wanted
            )
            if not busy:
                self._listed = None
                if self._made is not None:
                    self._made.rest()
                self.control.unregister(self)


_managers: dict[tuple[str, str], GuestManager[Any]] = {}
_managers_lock = threading.Lock()


def guest_manager(tuner: GuestTuner[Any, Any], uri: str) -> GuestManager[Any]:
    """The process's one manager of a tuner and a URI."""
    with _managers_lock:
        if (tuner.name, uri) not in _managers:
            _managers[tuner.name, uri] = GuestManager(tuner, uri)
        return _managers[tuner.name, uri]
