# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests' block I/O weights as the engine sees them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from tuned_virt.core.engine import Controller, Tuner
from tuned_virt.core.journal import Journal
from tuned_virt.core.options import Section
from tuned_virt.core.plan import Change, Plan, Values
from tuned_virt.core.replan_trigger import EventSource, ReplanTrigger
from tuned_virt.core.worker_pool import KeyedWorkerPool
from tuned_virt.kernel import timeouts
from tuned_virt.kernel.files import KernelFileError, KernelFS, active_word
from tuned_virt.plugins.vm_blkio import planner, policy
from tuned_virt.plugins.vm_blkio.planner import DEVICE, WeightedGuest, WeightState
from tuned_virt.plugins.vm_blkio.policy import REMOVE, WeightPolicy

CGROUP = "/sys/fs/cgroup"

LIBVIRT = "libvirt"


class GuestWeightsApi(Protocol):
    """What reads and sets weights, and follows guests. Its calls may hang."""

    def read(self) -> Sequence[WeightedGuest]:
        """All running guests. Raises Exception with the reason where that fails."""

    def write(self, uuid: str, run: int, parameter: str, value: int | str) -> None:
        """Set one parameter. Raises Exception with libvirt's reason."""

    def follow(self, changed: Callable[[str], None]) -> EventSource:
        """Tells of guests that start and stop."""


class BlkioTuner(Tuner[WeightPolicy, WeightState]):
    """Weights, as the plugin `vm_blkio` sets them."""

    name = "vm_blkio"
    options = policy.OPTIONS
    sectioned = True
    worker_threads = 8
    worker_timeout = timeouts.GUEST_WEIGHTS
    timeout_reason = "libvirt does not answer"

    def __init__(self, libvirt: Callable[[], GuestWeightsApi]) -> None:
        self._connect = libvirt
        self._workers = KeyedWorkerPool("virt-vm_blkio-read", 1, timeouts.GUEST_WEIGHTS)

    def parse(self, options: Mapping[str, str]) -> WeightPolicy:
        """See `policy.parse`."""
        return policy.parse(options)

    def parse_sections(
        self, sections: Sequence[Section], conflicting: Sequence[Section]
    ) -> WeightPolicy:
        """See `policy.parse_sections`."""
        return policy.parse_sections(sections)

    def read(self, fs: KernelFS, policy: WeightPolicy, originals: Values) -> WeightState:
        """The running guests; libvirt is asked only where a policy or an original concerns them."""
        if not policy.rules and not originals:
            return WeightState()
        answer = self._workers.run({LIBVIRT: self._ask})
        guests, unavailable = answer.get(LIBVIRT, ((), self.timeout_reason))
        paths = frozenset(path for rule in policy.rules for path in rule.devices)
        return WeightState(guests, unavailable, has_controller(fs), weighing(fs), paths)

    def _ask(self) -> tuple[Sequence[WeightedGuest], str]:
        try:
            return self._connect().read(), ""
        except Exception as error:
            return (), str(error)

    def decide(self, policy: WeightPolicy, state: WeightState, originals: Values) -> Plan:
        """See `planner.decide`."""
        return planner.decide(policy, state, originals)

    def values(self, state: WeightState) -> Values:
        """Weight by setting."""
        return state.values

    def worker_key(self, setting: str) -> str:
        """The guest."""
        return setting.partition("/")[0]

    def gone(self, state: WeightState, setting: str) -> str:
        """A guest that has stopped, or runs anew."""
        here = {planner.key(guest) for guest in state.guests}
        if state.unavailable:
            return f"not known: {state.unavailable}"
        return "" if self.worker_key(setting) in here else "the guest has stopped"

    def current(self, fs: KernelFS, change: Change) -> str:
        """The weight that libvirt tells; 0 for a device without. Raises KernelFileError."""
        guests, unavailable = self._ask()
        if unavailable:
            raise KernelFileError(change.path, unavailable)
        values = WeightState(guests).values
        return values.get(change.setting, "0")

    def write(self, fs: KernelFS, change: Change) -> None:
        """Have libvirt set it, live. Raises KernelFileError."""
        uuid, run, kind, device = planner.address(change.setting)
        value: int | str = (
            int(change.after) if kind == planner.GUEST else f"{device},{change.after}"
        )
        parameter = "weight" if kind == planner.GUEST else "device_weight"
        try:
            self._connect().write(uuid, run, parameter, value)
        except Exception as error:
            raise KernelFileError(change.path, str(error), change.after) from error

    def took(self, change: Change, now: str) -> bool:
        """The guest's own weight on a device is as good as none (see `GuestWeights.write`)."""
        taken_away = change.after == str(REMOVE) and planner.address(change.setting)[2] == DEVICE
        return super().took(change, now) or (taken_away and now == self._own(change.setting))

    def _own(self, setting: str) -> str:
        """The weight of the whole guest that a setting is of."""
        guests, _ = self._ask()
        worker_key = self.worker_key(setting)
        return next((str(guest.weight) for guest in guests if planner.key(guest) == worker_key), "")

    def controller(
        self,
        policy: WeightPolicy,
        plan: Plan,
        fs: KernelFS,
        journal: Journal,
        replan: Callable[[], None],
    ) -> Controller | None:
        """What follows guests, where anything is asked for."""
        if not policy.rules:
            return None
        watch = ReplanTrigger(self.name, replan)
        watch.follow(self._connect().follow(watch.wake))
        return watch


def has_controller(fs: KernelFS) -> bool:
    """Whether a cgroup controller holds weights: io of v2, or blkio of v1."""
    controllers = fs.read_optional(f"{CGROUP}/cgroup.controllers")
    return "io" in (controllers or "").split() or fs.exists(f"{CGROUP}/blkio")


def weighing(fs: KernelFS) -> frozenset[str]:
    """Disks on which weights have an effect: BFQ's (CFQ's), and those with a cost model enabled.

    The kernel's Documentation/block/bfq-iosched.rst, admin-guide/cgroup-v2.rst (io.cost.qos).
    """
    schedulers = {
        path.split("/")[3]: active_word(fs.read_optional(path) or "")
        for path in fs.glob("/sys/block/*/queue/scheduler")
    }
    costs = fs.read_optional(f"{CGROUP}/io.cost.qos") or ""
    enabled = re.findall(r"^(\d+:\d+) enable=1", costs, re.MULTILINE)
    return frozenset(
        {disk for disk, scheduler in schedulers.items() if scheduler in ("bfq", "cfq")}
        | set(enabled)
    )
