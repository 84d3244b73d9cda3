# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge pages as the engine sees them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from tuned_virt.core.engine import Controller
from tuned_virt.core.guest_source import NO_GUESTS, EventSource, GuestSource
from tuned_virt.core.journal import Journal
from tuned_virt.core.plan import Plan, Values
from tuned_virt.core.state_file import FOLDER as STATE_FOLDER
from tuned_virt.core.tuner import Replan, Tuner, Writer
from tuned_virt.frozen_dataclasses import replace
from tuned_virt.kernel.files import AnyPath, KernelFS
from tuned_virt.libvirt_api.follower import GuestFollower
from tuned_virt.libvirt_api.guest_pages import Asking, GuestPageReader
from tuned_virt.plugins.hugepages_numa import policy
from tuned_virt.plugins.hugepages_numa.history import DemandHistory
from tuned_virt.plugins.hugepages_numa.node_events import NodeEvents
from tuned_virt.plugins.hugepages_numa.policy import HugepagesPolicy
from tuned_virt.plugins.hugepages_numa.progress import ProgressFile
from tuned_virt.plugins.hugepages_numa.setting_types import TransparentSetting

if TYPE_CHECKING:
    from tuned_virt.plugins.hugepages_numa.state import HugepagesState


class HugepagesTuner(Tuner[HugepagesPolicy, "HugepagesState | None"]):
    """Huge pages, as the plugin `hugepages_numa` tunes them.

    Most profiles ask for none: what plans and allocates them is imported once one does.
    """

    name = "hugepages_numa"
    options = policy.OPTIONS
    setting_names = policy.NAMES
    parse = staticmethod(policy.parse)

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

    @functools.cached_property
    def writer(self) -> Writer:  # type: ignore[override]
        """See `writer`."""
        from tuned_virt.plugins.hugepages_numa.writer import HugepagesWriter

        return HugepagesWriter(self._progress)

    @classmethod
    def on_host(cls) -> HugepagesTuner:
        """With libvirt's guests, and the kernel's events of memory."""
        return cls(GuestFollower(GuestPageReader()), nodes=NodeEvents())

    @classmethod
    def kernel_files(cls, originals: Values) -> Values:
        """All but the mounts."""
        from tuned_virt.plugins.hugepages_numa import setting_types

        return {
            setting.file: str(value)
            for setting, value in setting_types.parse(originals).items()
            if not isinstance(setting, setting_types.MountSetting)
        }

    def undoing(self, policy: HugepagesPolicy) -> HugepagesPolicy:
        """See `HugepagesPolicy.undoing`."""
        return policy.undoing

    def read(
        self, fs: KernelFS, policy: HugepagesPolicy, originals: Values
    ) -> HugepagesState | None:
        """See `state.read`; None where nothing is asked for, nor to be put back."""
        if not policy.asks and not originals:
            return None
        from tuned_virt.plugins.hugepages_numa import state

        found = state.read(fs, policy, originals, self._guests)
        if policy.shrink_delay is None:
            return found
        asked = None if found.remark else found.demand
        return replace(found, lately=self._history.most(asked, policy.shrink_delay))

    def decide(
        self, policy: HugepagesPolicy, state: HugepagesState | None, originals: Values
    ) -> Plan:
        """See `planner.plan`."""
        if state is None:
            return Plan()
        from tuned_virt.plugins.hugepages_numa import planner

        return planner.plan(policy, state, originals)

    def controller(
        self, policy: HugepagesPolicy, plan: Plan, fs: KernelFS, journal: Journal, replan: Replan
    ) -> Controller | None:
        """What has pools follow nodes that come later and, where the policy says so, guests."""
        if not policy.pools or (plan.refused and not plan.wanted):
            return None
        guests = self._guests if policy.follows_guests else None
        if guests is None and self._nodes is None:
            return None
        from tuned_virt.plugins.hugepages_numa.controller import PoolController

        return PoolController(replan, guests, policy.shrink_delay, self._nodes)

    def files(self, policy: HugepagesPolicy, _settings: Values) -> Values:
        """Those of transparent huge pages."""
        return {TransparentSetting(name).file: word for name, word in policy.transparent.items()}

    def values(self, state: HugepagesState | None) -> Values:
        """The settings' values."""
        return state.values if state else {}

    def restored(self) -> None:
        """Nothing is under way."""
        self._progress.remove()
