# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge pages as the engine sees them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from tuned_virt.core.engine import Controller, Tuner
from tuned_virt.core.guest_source import FixedGuests, GuestSource, no_guests
from tuned_virt.core.journal import Journal
from tuned_virt.core.plan import Change, Plan, Values
from tuned_virt.core.state_file import FOLDER as STATE_FOLDER
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins.hugepages_numa import boot, conflicts, mounts, planner, policy, state
from tuned_virt.plugins.hugepages_numa.controller import PoolController
from tuned_virt.plugins.hugepages_numa.demand import GuestPageRequest
from tuned_virt.plugins.hugepages_numa.planner import MountChange, PoolChange
from tuned_virt.plugins.hugepages_numa.policy import HugepagesPolicy
from tuned_virt.plugins.hugepages_numa.pools import size_name
from tuned_virt.plugins.hugepages_numa.progress import ProgressFile
from tuned_virt.plugins.hugepages_numa.state import HugepagesState
from tuned_virt.plugins.hugepages_numa.writer import Allocation, Progress

log = logging.getLogger("tuned")

TOO_MANY = "kernels before 6.7 keep at least as many as there are surplus pages on other nodes"


class HugepagesTuner(Tuner[HugepagesPolicy, HugepagesState]):
    """Huge pages, as the plugin `hugepages_numa` tunes them.

    `follow` makes what follows libvirt's guests and calls back with a reason when they change.
    """

    name = "hugepages_numa"
    options = policy.OPTIONS

    def __init__(
        self,
        follow: Callable[[Callable[[str], None]], GuestSource[GuestPageRequest]] = no_guests,
        folder: Path = STATE_FOLDER,
    ) -> None:
        self._follow = follow
        self._guests: GuestSource[GuestPageRequest] = FixedGuests(
            unavailable="libvirt has not answered yet"
        )
        self._progress = ProgressFile(folder)
        self._ended: dict[str, Allocation] = {}

    def parse(self, options: Values) -> HugepagesPolicy:
        """See `policy.parse`."""
        return policy.parse(options)

    def undoing(self, policy: HugepagesPolicy) -> HugepagesPolicy:
        """Asks for nothing, and tries as much for what is put back."""
        return HugepagesPolicy(remedies=policy.remedies, timeout=policy.timeout)

    def read(self, fs: KernelFS, policy: HugepagesPolicy, originals: Values) -> HugepagesState:
        """See `state.read`."""
        return state.read(fs, policy, originals, self._guests)

    def controller(
        self,
        policy: HugepagesPolicy,
        plan: Plan,
        fs: KernelFS,
        journal: Journal,
        replan: Callable[[], None],
    ) -> Controller | None:
        """What has pools grow with what guests ask for, where the policy says so."""
        if not policy.follows_guests or plan.refused:
            return None
        return PoolController(self._follow, replan, self._use)

    def _use(self, guests: GuestSource[GuestPageRequest]) -> None:
        self._guests = guests

    def decide(self, policy: HugepagesPolicy, state: HugepagesState, originals: Values) -> Plan:
        """See `planner.plan`."""
        return planner.plan(policy, state, originals)

    def values(self, state: HugepagesState) -> Values:
        """The settings' values."""
        return state.values

    def current(self, fs: KernelFS, change: Change) -> str:
        """Persistent pages of a pool, a mount as its setting reads, else the file's word."""
        if isinstance(change, PoolChange):
            surplus = fs.read_number(f"{change.path.rpartition('/')[0]}/surplus_hugepages")
            return str(int(fs.read(change.path)) - surplus)
        if isinstance(change, MountChange):
            return state.mounted(fs, change.size_kib, mounts.as_set(change.path, change.after))
        return super().current(fs, change)

    def took(self, change: Change, now: str) -> bool:
        """A mount that is gone is gone, also where somebody keeps something in its folder."""
        gone = isinstance(change, MountChange) and mounts.absent(change.after)
        return mounts.absent(now) if gone else super().took(change, now)

    def write(self, fs: KernelFS, change: Change) -> None:
        """Mount or unmount; the rest is a write."""
        if isinstance(change, MountChange):
            mounts.write(fs, change.path, change.after, change.size_kib)
            conflicts.restart(change.restart)
        else:
            super().write(fs, change)

    def write_slowly(self, fs: KernelFS, change: Change, abandoned: threading.Event) -> None:
        """Bring a pool to its size."""
        assert isinstance(change, PoolChange)
        release = boot.version(os.uname().release)
        allocation = Allocation(fs, change, abandoned, release, self._tell)
        self._ended[change.setting] = allocation
        try:
            allocation.run()
        finally:
            self._progress.remove()

    def _tell(self, progress: Progress) -> None:
        log.info("hugepages_numa: %s", progress)
        self._progress.write(progress)

    def restored(self) -> None:
        """Nothing is under way."""
        self._progress.remove()

    def shortfall(self, change: Change, now: str) -> str:
        """What a pool came out short of, and what was tried."""
        if not isinstance(change, PoolChange):
            return super().shortfall(change, now)
        ended = self._ended[change.setting]
        asked = f"{change.after} pages of {size_name(change.size_kib)} asked for"
        got = f"{ended.best} got" + (f", after {', '.join(ended.tried)}" if ended.tried else "")
        if int(now) > int(change.after):
            return f"{asked}, {got}; {TOO_MANY}, {ended.others}"
        return f"{asked}, {got}" + (f"; rolled back to {now}" if change.rollback else "")
