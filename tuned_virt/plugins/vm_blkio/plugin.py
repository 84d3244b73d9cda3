# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests' block I/O weights as the engine sees them."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from tuned_virt.core.engine import Controller
from tuned_virt.core.guest_source import EventSource
from tuned_virt.core.journal import Journal
from tuned_virt.core.plan import Change, Plan, Values
from tuned_virt.core.replan_trigger import ReplanTrigger
from tuned_virt.core.section_settings import SettingNames
from tuned_virt.core.tuner import Replan, Sections, Tuner, Writer
from tuned_virt.core.worker_pool import KeyedWorkerPool
from tuned_virt.kernel import timeouts
from tuned_virt.kernel.device_identity import DeviceReader
from tuned_virt.kernel.files import KernelFileError, KernelFS, NotDone, active_word
from tuned_virt.libvirt_api.guest_weights import (
    DEVICE_WEIGHT,
    WEIGHT,
    GuestWeights,
    NoWeightsTold,
    Weights,
)
from tuned_virt.plugins.vm_blkio import planner, policy
from tuned_virt.plugins.vm_blkio.planner import WeightState
from tuned_virt.plugins.vm_blkio.policy import REMOVE, WeightPolicy

CGROUP = "/sys/fs/cgroup"

LIBVIRT = "libvirt"


class GuestWeightsApi(Protocol):
    """What reads and sets weights, whose calls may hang, and tells of guests."""

    @property
    def events(self) -> EventSource:
        """Tells of guests that start and stop."""

    def read(self, uuid: str = "") -> Sequence[Weights]:
        """All running guests, or one. Raises Exception with the reason where that fails."""

    def write(self, uuid: str, run: int, parameter: str, value: int | str) -> None:
        """Set one parameter. Raises Exception with libvirt's reason."""


class Retry:
    """Has what libvirt refused, or did not answer, planned again: an event source of its own.

    It waits `timeouts.RETRY_REFUSED` each time, and until libvirt answers.
    """

    def __init__(self, libvirt: GuestWeightsApi) -> None:
        self._libvirt = libvirt
        self._lock = threading.Lock()
        self._changed: Callable[[str], None] | None = None
        self._timer: threading.Timer | None = None
        self._due = False

    def start(self, changed: Callable[[str], None]) -> None:
        """Begin, also with what has failed before."""
        with self._lock:
            self._changed = changed
            self._wait()

    def stop(self) -> None:
        """End at once."""
        with self._lock:
            self._changed, self._due = None, False
            if self._timer:
                self._timer.cancel()
            self._timer = None

    def later(self) -> None:
        """Something has failed. From any thread."""
        with self._lock:
            self._due = True
            self._wait()

    def _wait(self) -> None:
        """The lock is held."""
        if self._due and self._changed is not None and self._timer is None:
            self._timer = threading.Timer(timeouts.RETRY_REFUSED, self._again)
            self._timer.daemon = True
            self._timer.start()

    def _again(self) -> None:
        unavailable = ask(self._libvirt).unavailable
        with self._lock:
            self._timer = None
            self._due = bool(unavailable)
            self._wait()
            changed = None if unavailable else self._changed
        if changed:
            changed("what libvirt did not do is tried again")


class WeightWriter(Writer):
    """Weights by libvirt, live; guests side by side, as libvirt may hang for one of them."""

    threads = 8
    timeout = timeouts.GUEST_WEIGHTS
    timeout_reason = "libvirt does not answer"

    def __init__(self, libvirt: GuestWeightsApi, retry: Retry) -> None:
        self._libvirt = libvirt
        self._retry = retry

    def worker_key(self, setting: str) -> str:
        """The guest."""
        return setting.partition("/")[0]

    def current(self, fs: KernelFS, change: Change) -> object:
        """The weight that libvirt tells; 0 for a device without. Raises KernelFileError."""
        told = ask(self._libvirt, planner.address(change.setting).uuid)
        if told.unavailable:
            self._retry.later()
            raise NotDone(change.path, told.unavailable)
        return planner.weight(told.guests, change.setting)

    def write(self, fs: KernelFS, change: Change, abandoned: threading.Event) -> str:
        """Have libvirt set it. Raises KernelFileError."""
        at = planner.address(change.setting)
        assert isinstance(change.after, int)
        value = f"{at.device},{change.after}" if at.device else change.after
        parameter = DEVICE_WEIGHT if at.device else WEIGHT
        try:
            self._libvirt.write(at.uuid, at.run, parameter, value)
        except Exception as error:
            self._retry.later()
            raise NotDone(change.path, str(error), str(change.after)) from error
        return ""

    def took(self, change: Change, now: object) -> bool:
        """The guest's own weight on a device is as good as none (see `GuestWeights.write`)."""
        taken_away = change.after == REMOVE and planner.address(change.setting).device
        as_good = bool(taken_away) and now == self._own(change.setting)
        return super().took(change, now) or as_good

    def _own(self, setting: str) -> int | None:
        """The weight of the whole guest that a setting is of."""
        told = ask(self._libvirt, planner.address(setting).uuid)
        key = self.worker_key(setting)
        return next((guest.weight for guest in told.guests if planner.key(guest) == key), None)


class BlkioTuner(Tuner[WeightPolicy, WeightState]):
    """Weights, as the plugin `vm_blkio` sets them."""

    name = "vm_blkio"
    restore_order = 1
    options = policy.OPTIONS
    setting_names = SettingNames("vm_", {"devices": "vm_blkio_devices"})
    parse = staticmethod(policy.parse)
    decide = staticmethod(planner.decide)
    sections = Sections(policy.parse_sections)

    def __init__(self, libvirt: GuestWeightsApi) -> None:
        self._libvirt = libvirt
        self._retry = Retry(libvirt)
        self.writer = WeightWriter(libvirt, self._retry)
        self._workers = KeyedWorkerPool("virt-vm_blkio-read", 1, timeouts.GUEST_WEIGHTS)

    @classmethod
    def on_host(cls) -> BlkioTuner:
        """With libvirt's guests."""
        return cls(GuestWeights())

    def read(self, fs: KernelFS, policy: WeightPolicy, originals: Values) -> WeightState:
        """The running guests; libvirt is asked only where a policy or an original concerns them."""
        if not policy.rules and not originals:
            return WeightState()
        answer = self._workers.run({LIBVIRT: lambda: ask(self._libvirt)})
        told = answer.get(LIBVIRT, Told((), WeightWriter.timeout_reason, silent=True))
        if told.unavailable:
            self._retry.later()
        paths = {path for rule in policy.rules for path in rule.devices}
        paths |= {planner.address(setting).device for setting in originals} - {""}
        disks, unknown = disks_at(fs, paths)
        return WeightState(*told, has_controller(fs), weighing(fs), disks, unknown)

    def values(self, state: WeightState) -> Values:
        """Weight by setting."""
        return {name: str(weight) for name, weight in state.weights.items()}

    def gone(self, state: WeightState, setting: str) -> str:
        """A guest that has stopped, or runs anew."""
        here = {planner.key(guest) for guest in state.guests}
        if state.unavailable:
            return f"not known: {state.unavailable}"
        if self.writer.worker_key(setting) not in here:
            return "the guest has stopped"
        return planner.why_gone(state, setting)

    def controller(
        self, policy: WeightPolicy, plan: Plan, fs: KernelFS, journal: Journal, replan: Replan
    ) -> Controller | None:
        """What follows guests, where anything is asked for."""
        if not policy.rules:
            return None
        watch = ReplanTrigger(self.name, replan)
        watch.follow(self._libvirt.events)
        watch.follow(self._retry)
        return watch


class Told(NamedTuple):
    """The running guests; why they are not known, "" if they are; whether libvirt is there."""

    guests: Sequence[Weights]
    unavailable: str = ""
    silent: bool = False


def ask(libvirt: GuestWeightsApi, uuid: str = "") -> Told:
    """What libvirt tells of the running guests, or of one."""
    try:
        return Told(libvirt.read(uuid))
    except Exception as error:
        return Told((), str(error), isinstance(error, NoWeightsTold))


def disks_at(fs: KernelFS, paths: Iterable[str]) -> tuple[dict[str, int], dict[str, str]]:
    """By path the entry in sysfs of the disk there, 0 for none; and by path why it is not known."""
    devices = DeviceReader(fs)
    disks: dict[str, int] = {}
    unknown: dict[str, str] = {}
    for path in sorted(paths):
        try:
            disks[path] = devices.disk(path)
        except KernelFileError as error:
            unknown[path] = f"it is not known which disk {path} is: {error}"
    return disks, unknown


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
