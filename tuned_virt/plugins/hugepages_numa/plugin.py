# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge pages as the engine sees them."""

from __future__ import annotations

from tuned_virt.core.engine import Controller
from tuned_virt.core.guest_source import NO_GUESTS, GuestSource
from tuned_virt.core.journal import Journal
from tuned_virt.core.plan import Plan, Values
from tuned_virt.core.state_file import FOLDER as STATE_FOLDER
from tuned_virt.core.tuner import Replan, Tuner
from tuned_virt.kernel.files import AnyPath, KernelFS
from tuned_virt.libvirt_api.follower import GuestFollower
from tuned_virt.libvirt_api.guest_pages import Asking, GuestPageReader
from tuned_virt.plugins.hugepages_numa import planner, policy, state
from tuned_virt.plugins.hugepages_numa.controller import PoolController
from tuned_virt.plugins.hugepages_numa.policy import HugepagesPolicy
from tuned_virt.plugins.hugepages_numa.progress import ProgressFile
from tuned_virt.plugins.hugepages_numa.state import HugepagesState
from tuned_virt.plugins.hugepages_numa.writer import HugepagesWriter


class HugepagesTuner(Tuner[HugepagesPolicy, HugepagesState]):
    """Huge pages, as the plugin `hugepages_numa` tunes them."""

    name = "hugepages_numa"
    options = policy.OPTIONS
    setting_names = policy.NAMES
    parse = staticmethod(policy.parse)
    decide = staticmethod(planner.plan)

    def __init__(
        self, guests: GuestSource[Asking] = NO_GUESTS, folder: AnyPath = STATE_FOLDER
    ) -> None:
        self._guests = guests
        self._progress = ProgressFile(folder)
        self.writer = HugepagesWriter(self._progress)

    @classmethod
    def on_host(cls) -> HugepagesTuner:
        """With libvirt's guests."""
        return cls(GuestFollower(GuestPageReader()))

    def undoing(self, policy: HugepagesPolicy) -> HugepagesPolicy:
        """See `HugepagesPolicy.undoing`."""
        return policy.undoing

    def read(self, fs: KernelFS, policy: HugepagesPolicy, originals: Values) -> HugepagesState:
        """See `state.read`; nothing is read for nothing."""
        if not policy.asks and not originals:
            return HugepagesState()
        return state.read(fs, policy, originals, self._guests)

    def controller(
        self, policy: HugepagesPolicy, plan: Plan, fs: KernelFS, journal: Journal, replan: Replan
    ) -> Controller | None:
        """What has pools grow with what guests ask for, where the policy says so."""
        if not policy.follows_guests or plan.refused:
            return None
        return PoolController(self._guests, replan)

    def values(self, state: HugepagesState) -> Values:
        """The settings' values."""
        return state.values

    def restored(self) -> None:
        """Nothing is under way."""
        self._progress.remove()
