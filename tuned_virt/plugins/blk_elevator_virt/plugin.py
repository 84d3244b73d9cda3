# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks as the engine sees them."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from tuned_virt.core.engine import Controller
from tuned_virt.core.guest_source import NO_GUESTS, GuestSource
from tuned_virt.core.journal import Journal
from tuned_virt.core.plan import Plan, Values
from tuned_virt.core.replan_trigger import ReplanTrigger
from tuned_virt.core.section_settings import SettingNames
from tuned_virt.core.state_file import FOLDER
from tuned_virt.core.tuner import Replan, Sections, Tuner
from tuned_virt.kernel import systemd
from tuned_virt.kernel.device_identity import why_gone
from tuned_virt.kernel.files import AnyPath, KernelFS
from tuned_virt.libvirt_api.follower import GuestFollower
from tuned_virt.libvirt_api.guest_disks import FollowedGuestDisks, GuestDisks
from tuned_virt.plugins.blk_elevator_virt import conflicts, planner, policy, udev_events
from tuned_virt.plugins.blk_elevator_virt import state as sysfs
from tuned_virt.plugins.blk_elevator_virt.classify import SCSI
from tuned_virt.plugins.blk_elevator_virt.guest_users import DiskUsers, GuestStorage
from tuned_virt.plugins.blk_elevator_virt.planner import DiskState
from tuned_virt.plugins.blk_elevator_virt.policy import DiskPolicy, MachineRole
from tuned_virt.plugins.blk_elevator_virt.policy_in_force import PolicyInForce
from tuned_virt.plugins.blk_elevator_virt.writer import DiskWriter


class DisksTuner(Tuner[DiskPolicy, DiskState]):
    """Disks, as the plugin `blk_elevator_virt` sets their schedulers."""

    name = "blk_elevator_virt"
    restore_order = 2
    options = policy.OPTIONS
    setting_names = SettingNames("disk_")
    parse = staticmethod(policy.parse)
    decide = staticmethod(planner.decide)
    writer = DiskWriter()
    sections = Sections(policy.parse_sections, ("disk", "elevator"))

    def __init__(
        self, guests: GuestSource[GuestDisks] = NO_GUESTS, folder: AnyPath = FOLDER
    ) -> None:
        self._guests = guests
        self._record = PolicyInForce(folder)
        self._readers: dict[
            KernelFS, tuple[sysfs.DiskReader, DiskUsers, conflicts.OthersReader]
        ] = {}

    @classmethod
    def on_host(cls) -> DisksTuner:
        """With libvirt's guests."""
        return cls(GuestFollower(FollowedGuestDisks()))

    def read(self, fs: KernelFS, policy: DiskPolicy, originals: Values) -> DiskState:
        """The disks, and what the policy needs to know of guests, udev and the kernel's modules."""
        state = DiskState(self._reader(fs).read())
        if policy.rules:
            state = self._surroundings(fs, policy, state)
            state = self._others(fs, state, planner.to_be_set(policy, state, originals))
        names = planner.needing_tunables(policy, state, originals)
        return replace(state, tunables={name: sysfs.tunables(fs, name) for name in names})

    def look(self, fs: KernelFS, policy: DiskPolicy, originals: Values) -> DiskState:
        """The disks alone."""
        return DiskState(self._reader(fs).look())

    def _reader(self, fs: KernelFS) -> sysfs.DiskReader:
        if fs not in self._readers:
            self._readers[fs] = (sysfs.DiskReader(fs), DiskUsers(fs), conflicts.OthersReader(fs))
        return self._readers[fs][0]

    def _surroundings(self, fs: KernelFS, policy: DiskPolicy, state: DiskState) -> DiskState:
        _, users, _ = self._readers[fs]
        role = role_for(policy, fs)
        asks = policy.asks_users(role) and any(
            disk.attached.kind in SCSI for disk in state.disks.values()
        )
        used = users.of(state.disks, self._guests) if asks else GuestStorage()
        asked = any(rule.udev_regex for rule in policy.rules)
        names = [disk.name for disk in state.disks.values() if disk.offered] if asked else []
        return replace(
            state,
            role=role,
            users=used.disks,
            network=used.network,
            unfollowed=used.unfollowed,
            unsettled=used.unsettled,
            properties={name: udev_events.properties(name) for name in names},
            lacking=lacking(fs, state.disks.values(), policy),
        )

    def _others(self, fs: KernelFS, state: DiskState, disks: Collection[sysfs.Disk]) -> DiskState:
        """With what else sets these disks: of those that are kept as they are nobody asks."""
        others = self._readers[fs][2]
        return replace(
            state, elsewhere=conflicts.by_disk(fs, others.read(), disks) if disks else {}
        )

    def values(self, state: DiskState) -> Values:
        """Scheduler by disk."""
        return state.values

    def files(self, _policy: DiskPolicy, settings: Values) -> Values:
        """Those of the disks' queues, by the names that the disks have had."""
        found = {}
        for setting, value in settings.items():
            key, _, file = setting.partition("/")
            found[f"{sysfs.BLOCK}/{key.partition('#')[0]}/queue/{file}"] = value
        return found

    def gone(self, state: DiskState, setting: str) -> str:
        """A disk that was pulled, or whose name another has now."""
        keys = {disk.key for disk in state.disks.values()}
        key = planner.worker_key(setting)
        return "" if key in keys else why_gone(key.partition("#")[0], state.disks)

    def controller(
        self, policy: DiskPolicy, plan: Plan, fs: KernelFS, journal: Journal, replan: Replan
    ) -> Controller | None:
        """What follows disks and guests, where anything is asked for."""
        if not policy.rules:
            return None
        controller = DiskController(self.name, replan, policy, self._record)
        controller.follow(udev_events.DiskEvents())
        if policy.asks_users(role_for(policy, fs)):
            controller.follow(self._guests)
        return controller

    def restored(self) -> None:
        """No policy is in force."""
        self._record.remove()


class DiskController(ReplanTrigger):
    """Has a policy planned again, and says to others that it is in force."""

    def __init__(
        self, name: str, replan: Replan, policy: DiskPolicy, record: PolicyInForce
    ) -> None:
        super().__init__(name, replan)
        self._policy = policy
        self._record = record

    def start(self) -> None:
        """Begin to watch."""
        super().start()
        self._record.save(self._policy)

    def stop(self) -> None:
        """End."""
        super().stop()
        self._record.remove()


def role_for(policy: DiskPolicy, fs: KernelFS) -> MachineRole:
    """This machine's role, where a section leaves that open; asking takes some 20 ms."""
    left_open = any(rule.role is MachineRole.AUTO for rule in policy.rules)
    return own_role(fs) if left_open else MachineRole.HOST


@functools.lru_cache(maxsize=4)
def own_role(fs: KernelFS) -> MachineRole:
    """This machine's: it stays what it is, so it is asked once."""
    try:
        guest = systemd.in_guest()
    except systemd.RoleUnknown:
        return MachineRole.HOST
    if not guest:
        return MachineRole.HOST
    return MachineRole.BOTH if systemd.runs_guests(fs) else MachineRole.GUEST


MODULES: Mapping[str, str] = {"mq-deadline": "mq-deadline", "kyber": "kyber-iosched", "bfq": "bfq"}
"""Module of each scheduler (block/Makefile)."""


def lacking(fs: KernelFS, disks: Iterable[sysfs.Disk], asked: DiskPolicy) -> frozenset[str]:
    """Schedulers that the policy may want, some queue does not offer, and no module brings."""
    words = {word for rule in asked.rules for word in rule.words.values()}
    words -= {policy.KEEP}
    wanted = {policy.resolve(word, queues, ("none",)) for word in words for queues in (1, 2)}
    offered = [set(disk.offered) for disk in disks if disk.offered]
    absent = {name for name in wanted - {"none"} if any(name not in names for names in offered)}
    if not absent:
        return frozenset()
    folder = f"/lib/modules/{os.uname().release}"
    text = "".join(
        fs.read_optional(f"{folder}/{file}") or "" for file in ("modules.dep", "modules.builtin")
    )
    return frozenset(
        name
        for name in absent
        if not re.search(rf"/{MODULES.get(name, name)}\.ko", text.replace("_", "-"))
    )
