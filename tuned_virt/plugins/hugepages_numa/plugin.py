# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge pages as the engine sees them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from tuned_virt.core.engine import Controller
from tuned_virt.core.guest_source import FixedGuests, GuestSource, no_guests
from tuned_virt.core.journal import Journal
from tuned_virt.core.plan import Change, Plan, Values
from tuned_virt.core.state_file import FOLDER as STATE_FOLDER
from tuned_virt.core.tuner import Tuner, Writer
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins.hugepages_numa import boot, conflicts, mounts, planner, policy, state
from tuned_virt.plugins.hugepages_numa.controller import PoolController
from tuned_virt.plugins.hugepages_numa.demand import GuestPageRequest
from tuned_virt.plugins.hugepages_numa.planner import MountChange, PoolChange
from tuned_virt.plugins.hugepages_numa.policy import HugepagesPolicy
from tuned_virt.plugins.hugepages_numa.progress import ProgressFile
from tuned_virt.plugins.hugepages_numa.state import HugepagesState
from tuned_virt.plugins.hugepages_numa.writer import Allocation, Progress

log = logging.getLogger("tuned")


class HugepagesWriter(Writer):
    """Pools in steps, mounts by mount(8), the rest by their files."""

    def __init__(self, progress: ProgressFile) -> None:
        self._progress = progress

    def current(self, fs: KernelFS, change: Change) -> object:
        """Persistent pages of a pool, a mount as its setting reads, else the file's word."""
        if isinstance(change, PoolChange):
            surplus = fs.read_number(f"{change.path.rpartition('/')[0]}/surplus_hugepages")
            return str(int(fs.read(change.path)) - surplus)
        if isinstance(change, MountChange):
            return state.mounted(fs, change.size_kib, mounts.as_set(change.path, str(change.after)))
        return super().current(fs, change)

    def took(self, change: Change, now: object) -> bool:
        """A mount that is gone is gone, also where somebody keeps something in its folder."""
        gone = isinstance(change, MountChange) and mounts.absent(str(change.after))
        return mounts.absent(str(now)) if gone else super().took(change, now)

    def write(self, fs: KernelFS, change: Change, abandoned: threading.Event) -> str:
        """Mount or unmount, or bring a pool to its size; the rest is a write."""
        if isinstance(change, PoolChange):
            return self._allocate(fs, change, abandoned)
        if isinstance(change, MountChange):
            mounts.write(fs, change.path, str(change.after), change.size_kib)
            conflicts.restart(change.restart)
            return ""
        return super().write(fs, change, abandoned)

    def _allocate(self, fs: KernelFS, change: PoolChange, abandoned: threading.Event) -> str:
        """What a pool came out short of, and what was tried."""
        release = boot.version(os.uname().release)
        allocation = Allocation(fs, change, abandoned, release, self._tell)
        try:
            return allocation.run()
        finally:
            self._progress.remove()

    def _tell(self, progress: Progress) -> None:
        log.info("hugepages_numa: %s", progress)
        self._progress.write(progress)


class HugepagesTuner(Tuner[HugepagesPolicy, HugepagesState]):
    """Huge pages, as the plugin `hugepages_numa` tunes them.

    `follow` makes what follows libvirt's guests and calls back with a reason when they change.
    """

    name = "hugepages_numa"
    options = policy.OPTIONS
    parse = staticmethod(policy.parse)
    decide = staticmethod(planner.plan)

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
        self.writer = HugepagesWriter(self._progress)

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

    def values(self, state: HugepagesState) -> Values:
        """The settings' values."""
        return state.values

    def restored(self) -> None:
        """Nothing is under way."""
        self._progress.remove()
