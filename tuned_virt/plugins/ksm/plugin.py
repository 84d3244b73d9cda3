# SPDX-License-Identifier: GPL-2.0-or-later
"""KSM as the engine sees it: one plan at apply, and a loop where an algorithm goes on deciding."""

from __future__ import annotations

import os
import threading

from tuned_virt.core.engine import Controller
from tuned_virt.core.guest_source import NO_GUESTS, GuestSource
from tuned_virt.core.journal import Journal
from tuned_virt.core.plan import Change, Plan, Values
from tuned_virt.core.section_settings import SettingNames
from tuned_virt.core.state_file import FOLDER as STATE_FOLDER
from tuned_virt.core.tuner import Replan, Tuner, Writer
from tuned_virt.kernel import mempolicy
from tuned_virt.kernel.files import AnyPath, KernelFS
from tuned_virt.libvirt_api.follower import GuestFollower
from tuned_virt.libvirt_api.running_guests import RunningGuest, RunningGuestReader
from tuned_virt.model import topology
from tuned_virt.plugins.ksm import conflicts, planner, policy
from tuned_virt.plugins.ksm import state as settings
from tuned_virt.plugins.ksm.controller import KsmController
from tuned_virt.plugins.ksm.controller_state import FILE, ControllerStateFile
from tuned_virt.plugins.ksm.decision import CONTROLLED
from tuned_virt.plugins.ksm.policy import KsmPolicy
from tuned_virt.plugins.ksm.sampler import Sampler
from tuned_virt.plugins.ksm.state import KsmState


class KsmWriter(Writer):
    """Settings by their files, services by systemd."""

    def current(self, fs: KernelFS, change: Change) -> object:
        """A setting as the kernel has it, a service as systemd has it."""
        if change.setting in conflicts.UNITS:
            return conflicts.state(change.setting)
        return super().current(fs, change)

    def write(self, fs: KernelFS, change: Change, abandoned: threading.Event) -> str:
        """A write; what is unmerged is spread over the nodes instead of filling the writer's."""
        if change.setting in conflicts.UNITS:
            conflicts.set_state(change.setting, str(change.after))
            return ""
        nodes = topology.memory_nodes(fs) if change.slow else frozenset()
        with mempolicy.interleaved(nodes):
            return super().write(fs, change, abandoned)


def values(state: KsmState) -> Values:
    """The settings' values, and the services'."""
    return {**state.conflicts.services, **state.values}


class KsmTuner(Tuner[KsmPolicy, KsmState]):
    """KSM, as the plugin `ksm` tunes it."""

    name = "ksm"
    options = policy.OPTIONS
    setting_names = SettingNames("ksm_")
    parse = staticmethod(policy.parse)
    decide = staticmethod(planner.plan)
    values = staticmethod(values)
    writer = KsmWriter()

    def __init__(
        self, guests: GuestSource[RunningGuest] = NO_GUESTS, state: AnyPath = STATE_FOLDER
    ) -> None:
        self._guests = guests
        self._record = ControllerStateFile(os.path.join(state, FILE))

    @classmethod
    def on_host(cls) -> KsmTuner:
        """With libvirt's running guests."""
        return cls(GuestFollower(RunningGuestReader()))

    @classmethod
    def kernel_files(cls, originals: Values) -> Values:
        """All but the services."""
        kept = originals.items()
        return {f"{settings.FOLDER}/{name}": v for name, v in kept if name not in conflicts.UNITS}

    def undoing(self, policy: KsmPolicy) -> KsmPolicy:
        """See `KsmPolicy.undoing`."""
        return policy.undoing

    def read(self, fs: KernelFS, policy: KsmPolicy, originals: Values) -> KsmState:
        """See `settings.read`."""
        return settings.read(fs, conflicts.read(fs))

    def files(self, policy: KsmPolicy, _settings: Values) -> Values:
        """The settings' files."""
        names = {**policy.settings, **dict.fromkeys(CONTROLLED if policy.algorithm else (), "")}
        return {
            f"{settings.FOLDER}/{name}": wanted if isinstance(wanted, str) else str(wanted.value)
            for name, wanted in names.items()
            if wanted != "auto"
        }

    def restored(self) -> None:
        """No controller's record is left."""
        self._record.remove()

    def controller(
        self, policy: KsmPolicy, plan: Plan, fs: KernelFS, journal: Journal, replan: Replan
    ) -> Controller | None:
        """The loop, where an algorithm decides and nothing speaks against it."""
        if policy.algorithm is None or not plan.originals.keys() >= set(CONTROLLED):
            return None
        sampler = Sampler(fs, self._guests)
        return KsmController(policy.algorithm, fs, journal, self._record, sampler)
