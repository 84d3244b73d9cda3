# SPDX-License-Identifier: GPL-2.0-or-later
"""The running guests as the planner and the kernel know them, by run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from tuned_virt.frozen_dataclasses import dataclass, replace
from tuned_virt.guests import originals
from tuned_virt.guests.originals import GuestOriginal
from tuned_virt.kernel.files import KernelFS
from tuned_virt.kernel.procfs import start_time, ticks
from tuned_virt.libvirt_api.connection import Domain
from tuned_virt.model.guest import Guest, GuestError, read_guest
from tuned_virt.model.guest.qemu_threads import ThreadFinder

HOTPLUGGABLE = "hotpluggable='yes'"
"""What libvirt writes of a vCPU that can be unplugged."""


@dataclass(frozen=True)
class TrackedGuest:
    """One run of a guest.

    guest  what its XML asks for; None where that is not read, for the reason in `error`
    since  when it was first seen (monotonic)
    started_under_profile  its process is younger than the profile, or libvirt told of it later
    """

    active: Domain
    key: str
    pid: int
    start: int
    guest: Guest | None
    error: str
    since: float
    started_under_profile: bool


NOTHING_KEPT: Mapping[str, GuestOriginal] = {}

Seen = Mapping[str, TrackedGuest]
"""The guests that run, by key."""


class GuestTracker:
    """Keeps `TrackedGuest` by run; a guest is read anew only when its XML has changed."""

    def __init__(self, fs: KernelFS) -> None:
        self._finder = ThreadFinder(fs)
        self._seen: dict[tuple[str, int], TrackedGuest] = {}

    def look(
        self,
        guests: Iterable[Domain],
        active_since: float,
        kept: Mapping[str, GuestOriginal] = NOTHING_KEPT,
    ) -> Seen:
        """The guests that run now, by key.

        active_since: seconds after boot from which a guest's start is one under the profile.
        kept: a run of which something is kept is known by that, were its process not to be seen.
        """
        now = {active.run: active for active in guests}
        new = [active for run, active in now.items() if run not in self._seen]
        known = {(one.uuid, one.id): one for one in kept.values() if originals.may_run(one)}
        unknown = [active for active in new if not getattr(known.get(active.run), "pid", 0)]
        pids = self._finder.find({active.uuid: active.name for active in unknown})
        for run in self._seen.keys() - now.keys():
            del self._seen[run]
        for active in new:
            before = known.get(active.run)
            pid = (before.pid if before else 0) or pids.get(active.uuid, 0)
            start = (start_time(pid) if pid else None) or 0
            pid = pid if start else 0
            key = before.key if before else originals.key(active.uuid, active.id, start)
            under_profile = start / ticks() >= active_since
            values = (active, key, pid, start, *_read(active), time.monotonic(), under_profile)
            self._seen[active.run] = TrackedGuest(*values)
        for run, seen in self._seen.items():
            if now[run] is not seen.active:
                self.reread(run, now[run])
        return {seen.key: seen for seen in self._seen.values()}

    def reread(self, run: tuple[str, int], active: Domain) -> TrackedGuest:
        """A guest whose XML has changed; what the planner reads may still be the same."""
        old = self._seen[run]
        guest, error = _read(active)
        if guest == old.guest:
            guest = old.guest
        values = (old.key, old.pid, old.start, guest, error, old.since, old.started_under_profile)
        self._seen[run] = new = TrackedGuest(active, *values)
        return new

    def pluggable(self) -> dict[str, int]:
        """Guests whose vCPUs can be plugged in or out while they run: processes by UUID."""
        return {
            one.active.uuid: one.pid
            for one in self._seen.values()
            if one.pid and one.guest and (one.guest.pluggable or HOTPLUGGABLE in one.active.xml)
        }

    def rest(self) -> None:
        """Hold no guest of libvirt's: while there is one, its connection stays open."""
        for run, seen in self._seen.items():
            closed = replace(seen.active, domain=None)
            self._seen[run] = replace(seen, active=closed)

    def run(self, run: tuple[str, int]) -> TrackedGuest | None:
        """One of them, as it was last looked at."""
        return self._seen.get(run)


def _read(active: Domain) -> tuple[Guest | None, str]:
    try:
        return read_guest(active.xml), ""
    except GuestError as error:
        return None, f"its XML cannot be read: {error}"
