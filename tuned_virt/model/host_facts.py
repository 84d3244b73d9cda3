# SPDX-License-Identifier: GPL-2.0-or-later
"""What the audit asks of a host beside its topology; each fact is known, or says why it is not."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel.files import KernelFileError, KernelFS, active_word
from tuned_virt.model.topology.memory import meminfo

T = TypeVar("T")

FILES_ONLY = "only the host itself can tell, and files were given"

KSM = "/sys/kernel/mm/ksm"
THP = "/sys/kernel/mm/transparent_hugepage/enabled"
CPUFREQ = "/sys/devices/system/cpu/cpufreq"
NET = "/sys/class/net"


class NotKnown(Exception):
    """A fact that could not be read; its text says why."""


@dataclass(frozen=True)
class Fact(Generic[T]):
    """A value, or why there is none."""

    value: T | None = None
    why: str = FILES_ONLY

    def get(self) -> T:
        """The value. Raises NotKnown."""
        if self.value is None:
            raise NotKnown(self.why)
        return self.value


@dataclass(frozen=True)
class KsmSettings:
    """KSM as it is set now."""

    run: bool
    across_nodes: bool


@dataclass(frozen=True)
class NetworkLink:
    """A network device of the host: its MTU, and the bridge or bond that it is a port of."""

    mtu: int
    master: str = ""


@dataclass(frozen=True)
class BackingDisk:
    """A disk that guests are on: its I/O scheduler, the one for its attachment, and why."""

    guests: tuple[str, ...]
    scheduler: str
    wanted: str
    why: str


@dataclass(frozen=True)
class CpuFrequency:
    """Governors in use, and the driver that obeys them."""

    governors: frozenset[str]
    driver: str


@dataclass(frozen=True)
class HostFacts:
    """All facts; a host from files has none of them.

    kvm             /dev/kvm is there
    numad           its program is installed
    swap            KiB
    thp             always, madvise or never
    mounted         sizes in KiB of huge pages that are mounted
    vhost_net       /dev/vhost-net is there, or loaded on demand
    nested          parameter of kvm_intel or kvm_amd
    halt_poll_ns    parameter of kvm
    numa_balancing  the kernel moves pages to where they are used
    arp_filter      of all interfaces; subnets: network → interfaces with a route to it
    schedulers      disk → I/O scheduler
    backing         disk that guests are on → what blk_elevator_virt says of it
    idle_states     C-state in use → µs that a CPU takes to leave it
    profiles        active profiles of TuneD
    """

    kvm: Fact[bool] = field(default_factory=Fact)
    numad: Fact[bool] = field(default_factory=Fact)
    swap: Fact[int] = field(default_factory=Fact)
    thp: Fact[str] = field(default_factory=Fact)
    ksm: Fact[KsmSettings] = field(default_factory=Fact)
    mounted: Fact[frozenset[int]] = field(default_factory=Fact)
    vhost_net: Fact[bool] = field(default_factory=Fact)
    nested: Fact[bool] = field(default_factory=Fact)
    halt_poll_ns: Fact[int] = field(default_factory=Fact)
    numa_balancing: Fact[bool] = field(default_factory=Fact)
    arp_filter: Fact[bool] = field(default_factory=Fact)
    subnets: Fact[Mapping[str, tuple[str, ...]]] = field(default_factory=Fact)
    links: Fact[Mapping[str, NetworkLink]] = field(default_factory=Fact)
    frequency: Fact[CpuFrequency] = field(default_factory=Fact)
    schedulers: Fact[Mapping[str, str]] = field(default_factory=Fact)
    backing: Fact[Mapping[str, BackingDisk]] = field(default_factory=Fact)
    idle_states: Fact[Mapping[str, int]] = field(default_factory=Fact)
    profiles: Fact[tuple[str, ...]] = field(default_factory=Fact)


def read(fs: KernelFS) -> HostFacts:
    """The facts of this host, as far as this user can read them; `backing` is not among them."""
    return HostFacts(**{name: _read(fs, one) for name, one in READERS.items()})


def _read(fs: KernelFS, reader: Callable[[KernelFS], T]) -> Fact[T]:
    try:
        return Fact(reader(fs), "")
    except KernelFileError as error:
        return Fact(None, str(error))
    except ValueError as error:
        return Fact(None, f"what the kernel says is not understood: {error}")


def _ksm(fs: KernelFS) -> KsmSettings:
    several = fs.read_optional(f"{KSM}/merge_across_nodes")
    return KsmSettings(fs.read(f"{KSM}/run") == "1", several == "1")


def _mounted(fs: KernelFS) -> frozenset[int]:
    usual = meminfo(fs).get("Hugepagesize", 0)
    found = re.findall(r"^\S+ \S+ hugetlbfs (\S+)", fs.read("/proc/mounts"), re.MULTILINE)
    sizes = [re.search(r"pagesize=(\d+)([KMG]?)", options) for options in found]
    units = {"": 1 / 1024, "K": 1, "M": 1 << 10, "G": 1 << 20}
    return frozenset(int(int(one[1]) * units[one[2]]) if one else usual for one in sizes)


def _vhost_net(fs: KernelFS) -> bool:
    """A module that is not loaded has its device all the same, and is loaded when it is opened."""
    return fs.exists("/dev/vhost-net")


def _nested(fs: KernelFS) -> bool:
    for module in ("kvm_intel", "kvm_amd"):
        text = fs.read_optional(f"/sys/module/{module}/parameters/nested")
        if text is not None:
            return text in ("Y", "1")
    raise ValueError("neither kvm_intel nor kvm_amd is loaded")


def _number(path: str) -> Callable[[KernelFS], int]:
    return lambda fs: int(fs.read(path))


def _balancing(fs: KernelFS) -> bool:
    """Absent in a kernel without it."""
    return (fs.read_optional("/proc/sys/kernel/numa_balancing") or "0") not in ("0", "")


def _arp_filter(fs: KernelFS) -> bool:
    return fs.read("/proc/sys/net/ipv4/conf/all/arp_filter") == "1"


def _subnets(fs: KernelFS) -> dict[str, tuple[str, ...]]:
    """Networks that interfaces are directly in, from /proc/net/route (gateway 0)."""
    found: dict[str, list[str]] = {}
    for line in fs.read("/proc/net/route").splitlines()[1:]:
        parts = line.split()
        if len(parts) > 7 and parts[2] == "00000000" and parts[7] != "00000000":
            network = f"{_address(parts[1])}/{bin(int(parts[7], 16)).count('1')}"
            found.setdefault(network, []).append(parts[0])
    return {network: tuple(sorted(set(names))) for network, names in found.items()}


def _address(text: str) -> str:
    return ".".join(str(one) for one in bytes.fromhex(text)[::-1])


def _links(fs: KernelFS) -> dict[str, NetworkLink]:
    found = {}
    for name in fs.names(NET):
        mtu = fs.read_optional(f"{NET}/{name}/mtu")
        if mtu:
            master = fs.link(f"{NET}/{name}/master") or ""
            found[name] = NetworkLink(int(mtu), os.path.basename(master))
    return found


def _frequency(fs: KernelFS) -> CpuFrequency:
    folders = fs.glob(f"{CPUFREQ}/policy[0-9]*")
    governors = {fs.read(f"{one}/scaling_governor") for one in folders}
    driver = fs.read(f"{folders[0]}/scaling_driver") if folders else ""
    return CpuFrequency(frozenset(governors), driver)


def _schedulers(fs: KernelFS) -> dict[str, str]:
    texts = {disk: fs.read_optional(f"/sys/block/{disk}/queue/scheduler") for disk in _disks(fs)}
    return {disk: active_word(text) for disk, text in texts.items() if text}


def _disks(fs: KernelFS) -> list[str]:
    return sorted(fs.names("/sys/block"))


def _idle_states(fs: KernelFS) -> dict[str, int]:
    """Of the first CPU, but for those that somebody has disabled."""
    found = {}
    for state in fs.glob("/sys/devices/system/cpu/cpu0/cpuidle/state[0-9]*"):
        if fs.read_optional(f"{state}/disable") != "1":
            found[fs.read(f"{state}/name")] = fs.read_number(f"{state}/latency")
    return found


def _profiles(fs: KernelFS) -> tuple[str, ...]:
    return tuple((fs.read_optional("/etc/tuned/active_profile") or "").split())


READERS: Mapping[str, Callable[[KernelFS], Any]] = {
    "kvm": lambda fs: fs.exists("/dev/kvm"),
    "numad": lambda fs: shutil.which("numad") is not None,
    "swap": lambda fs: meminfo(fs).get("SwapTotal", 0),
    "thp": lambda fs: active_word(fs.read(THP)),
    "ksm": _ksm,
    "mounted": _mounted,
    "vhost_net": _vhost_net,
    "nested": _nested,
    "halt_poll_ns": _number("/sys/module/kvm/parameters/halt_poll_ns"),
    "numa_balancing": _balancing,
    "arp_filter": _arp_filter,
    "subnets": _subnets,
    "links": _links,
    "frequency": _frequency,
    "schedulers": _schedulers,
    "idle_states": _idle_states,
    "profiles": _profiles,
}
