# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge pages as the engine sees them."""

from __future__ import annotations

from tuned_virt.core.engine import Controller
from tuned_virt.core.guest_source import NO_GUESTS, EventSource, GuestSource
from tuned_virt.core.journal import Journal
from tuned_virt.core.plan import Plan, Values
from tuned_virt.core.state_file import FOLDER as STATE_FOLDER
from tuned_virt.core.tuner import Replan, Tuner
from tuned_virt.frozen_dataclasses import replace
from tuned_virt.kernel.files import AnyPath, KernelFS
from tuned_virt.libvirt_api.follower import GuestFollower
from tuned_virt.libvirt_api.guest_pages import Asking, GuestPageReader
from tuned_virt.plugins.hugepages_numa import planner, policy, state
from tuned_virt.plugins.hugepages_numa.controller import PoolController
from tuned_virt.plugins.hugepages_numa.history import DemandHistory
from tuned_virt.plugins.hugepages_numa.node_events import NodeEvents
from tuned_virt.plugins.hugepages_numa.policy import HugepagesPolicy
from tuned_virt.plugins.hugepages_numa.progress import ProgressFile
from tuned_virt.plugins.hugepages_numa.setting_types import TransparentSetting
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
        self,
        guests: GuestSource[Asking] = NO_GUESTS,
        folder: AnyPath = STATE_FOLDER,
        nodes: EventSource | None = None,
    ) -> None:
        self._guests = guests
        self._nodes = nodes
        self._history = DemandHistory()
        self._progress = ProgressFile(folder)
        self.writer = HugepagesWriter(self._progress)

    @classmethod
    def on_host(cls) -> HugepagesTuner:
        """With libvirt's guests, and the kernel's events of memory."""
        return cls(GuestFollower(GuestPageReader()), nodes=NodeEvents())

    def undoing(self, policy: HugepagesPolicy) -> HugepagesPolicy:
        """See `HugepagesPolicy.undoing`."""
        return policy.undoing

    def read(self, fs: KernelFS, policy: HugepagesPolicy, originals: Values) -> HugepagesState:
        """See `state.read`; nothing is read for nothing."""
        if not policy.asks and not originals:
            return HugepagesState()
        found = state.read(fs, policy, originals, self._guests)
        if policy.shrink_delay is None:
            return found
        asked = None if found.remark else found.demand
        return replace(found, lately=self._history.most(asked, policy.shrink_delay))

    def controller(
        self, policy: HugepagesPolicy, plan: Plan, fs: KernelFS, journal: Journal, replan: Replan
    ) -> Controller | None:
        """What has pools follow nodes that come later and, where the policy says so, guests."""
        if not policy.pools or (plan.refused and not plan.wanted):
            return None
        guests = self._guests if policy.follows_guests else None
        if guests is None and self._nodes is None:
            return None
        return PoolController(replan, guests, policy.shrink_delay, self._nodes)

    def files(self, policy: HugepagesPolicy) -> Values:
        """Those of transparent huge pages."""
        return {TransparentSetting(name).file: word for name, word in policy.transparent.items()}

    def values(self, state: HugepagesState) -> Values:
        """The settings' values."""
        return state.values

    def restored(self) -> None:
        """Nothing is under way."""
        self._progress.remove()
