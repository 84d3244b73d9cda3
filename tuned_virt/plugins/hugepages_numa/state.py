# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine as a plan of huge pages needs to know it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from tuned_virt.core.guest_source import GuestSource
from tuned_virt.core.plan import Values
from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel.files import KernelFS, active_word
from tuned_virt.libvirt_api.guest_pages import Asking
from tuned_virt.model import topology
from tuned_virt.model.guest import printable
from tuned_virt.model.topology.huge_pages import FOLDER
from tuned_virt.plugins.hugepages_numa import boot, conflicts, demand, mounts, pools, setting_types
from tuned_virt.plugins.hugepages_numa.demand import PageDemand
from tuned_virt.plugins.hugepages_numa.policy import TRANSPARENT, HugepagesPolicy
from tuned_virt.plugins.hugepages_numa.pools import size_name
from tuned_virt.plugins.hugepages_numa.setting_types import (
    HugetlbMount,
    MountSetting,
    NotMounted,
    OvercommitSetting,
    Pages,
    Pools,
    PoolSetting,
    Setting,
    TransparentSetting,
    Value,
)


@dataclass(frozen=True)
class NodeFreeMemory:
    """A node's memory in KiB; `cache` is what the kernel can free without swapping."""

    total: int
    free: int
    cache: int

    @property
    def available(self) -> int:
        """KiB that huge pages could take."""
        return self.free + self.cache


@dataclass(frozen=True)
class HugepagesState:
    """Huge pages as the kernel shows them; `pools` is empty in a kernel without them.

    demotes     page size → the size that its pages are split into, both in KiB
    overcommit  surplus pages allowed, by size in KiB, where the kernel allows any
    demand      pages that guests ask for, `remark` why that is not known; `far` are those of them
                for which only nodes without CPUs (`without_cpus`) have room
    lately      the most that they have asked for within the policy's delay; None: nothing shrinks
    requests    what each guest that does not run asks for, by name; `invalid` what libvirt refuses
    cmdline     the kernel's command line, `release` its version
    blind       libvirt's daemons that do not see a mount which is there, by the mount's setting
    conflicts   who else decides on huge pages, in words
    """

    pools: Pools = field(default_factory=dict)
    nodes: Mapping[int, NodeFreeMemory] = field(default_factory=dict)
    demotes: Mapping[int, int] = field(default_factory=dict)
    overcommit: Mapping[int, int] = field(default_factory=dict)
    transparent: Values = field(default_factory=dict)
    transparent_sizes: Mapping[int, str] = field(default_factory=dict)
    mounts: Mapping[MountSetting, HugetlbMount | NotMounted] = field(default_factory=dict)
    demand: Pages = field(default_factory=dict)
    far: Pages = field(default_factory=dict)
    requests: tuple[tuple[str, tuple[PageDemand, ...]], ...] = ()
    invalid: tuple[tuple[str, str], ...] = ()
    without_cpus: frozenset[int] = frozenset()
    lately: Pages | None = None
    remark: str = ""
    cmdline: str = ""
    release: tuple[int, int] = (6, 18)
    daemons: tuple[str, ...] = ()
    blind: Mapping[MountSetting, str] = field(default_factory=dict)
    conflicts: tuple[str, ...] = ()

    @property
    def sizes(self) -> list[int]:
        """Page sizes of this machine in KiB, in order."""
        return sorted({setting.size_kib for setting in self.pools})

    @property
    def settings(self) -> dict[Setting, Value]:
        """Value by setting."""
        return {
            **{setting: pool.persistent for setting, pool in self.pools.items()},
            **{OvercommitSetting(size): count for size, count in self.overcommit.items()},
            **{TransparentSetting(option): word for option, word in self.transparent.items()},
            **{setting: found for setting, found in self.mounts.items()},
        }

    @property
    def values(self) -> dict[str, str]:
        """The same in words, and what the kernel's command line has."""
        found = boot.parse(self.cmdline, sizes=self.sizes)
        return {
            **{str(setting): str(value) for setting, value in self.settings.items()},
            **{boot_setting(size): found.get(size, "") for size in self.sizes},
        }


def boot_setting(size_kib: int) -> str:
    """The setting of the kernel's command line for one size: "boot 1G"."""
    return f"boot {size_name(size_kib)}"


def read(
    fs: KernelFS, policy: HugepagesPolicy, originals: Values, guests: GuestSource[Asking]
) -> HugepagesState:
    """The machine's state; mounts are those of the policy and of the kept originals.

    What costs more than a few small files is read only where the policy asks for pages.
    """
    found = pools.read(fs)
    kinds = {PoolSetting(pool.node, pool.size_kib): pool for pool in found}
    sizes = {pool.size_kib for pool in found}
    wanted = _mounts(policy, originals)
    daemons = conflicts.libvirt_daemons(fs) if wanted else {}
    nodes = _memory(fs, {pool.node for pool in found})
    known = guests.guests if policy.follows_guests else None
    without_cpus = topology.nodes_without_cpus(fs) & nodes.keys()
    return HugepagesState(
        pools=kinds,
        nodes=nodes,
        without_cpus=without_cpus,
        **_demand(fs, tuple((known or {}).values()), kinds, nodes, without_cpus),
        remark=f"the requests of guests are unknown: {guests.unavailable}" if known is None else "",
        demotes=dict(_demotes(fs, sizes)),
        overcommit=dict(_overcommit(fs, sizes)),
        transparent=dict(_transparent(fs)),
        transparent_sizes=pools.transparent_sizes(fs) if policy.transparent else {},
        mounts=_mounted(fs, wanted),
        cmdline=fs.read_optional("/proc/cmdline") or "",
        release=boot.version(os.uname().release),
        daemons=tuple(daemons),
        blind=conflicts.blind(fs, wanted, daemons),
        conflicts=tuple(conflicts.read(fs)) if policy.pools else (),
    )


def _demand(
    fs: KernelFS,
    guests: Sequence[Asking],
    kinds: Pools,
    nodes: Mapping[int, NodeFreeMemory],
    without_cpus: frozenset[int],
) -> dict[str, Any]:
    """The state's fields that tell of guests."""
    if not guests:
        return {}
    spare = {node: memory.available for node, memory in nodes.items()}
    default, base = default_size(fs), topology.page_size() // 1024
    spread = demand.spread(guests, kinds, default, spare, without_cpus, base)
    idle = [
        (printable(one.guest.name), one.guest) for one in guests if one.guest and not one.running
    ]
    return {
        "demand": spread.pages,
        "far": spread.far,
        "requests": tuple(
            (name, tuple(demand.portions(guest, default, base))) for name, guest in idle
        ),
        "invalid": tuple((name, why) for name, guest in idle if (why := demand.invalid(guest))),
    }


def _memory(fs: KernelFS, nodes: Collection[int]) -> dict[int, NodeFreeMemory]:
    """By node; of a single node as the whole machine has it, which knows memory to come, too."""
    found = {}
    single = topology.meminfo(fs) if len(set(nodes)) == 1 else {}
    for node in sorted(nodes):
        fields = single if "MemTotal" in single else topology.node_meminfo(fs, node)
        cache = sum(fields.get(name, 0) for name in topology.CACHE)
        found[node] = NodeFreeMemory(fields.get("MemTotal", 0), fields.get("MemFree", 0), cache)
    return found


def _demotes(fs: KernelFS, sizes: Iterable[int]) -> Iterable[tuple[int, int]]:
    for size in sizes:
        found = re.fullmatch(
            r"(\d+)kB", fs.read_optional(f"{FOLDER}/hugepages-{size}kB/demote_size") or ""
        )
        if found:
            yield size, int(found[1])


def _overcommit(fs: KernelFS, sizes: Iterable[int]) -> Iterable[tuple[int, int]]:
    for size in sorted(sizes):
        text = fs.read_optional(OvercommitSetting(size).file) or ""
        if text.isdigit():
            yield size, int(text)


def _transparent(fs: KernelFS) -> Iterable[tuple[str, str]]:
    for option in TRANSPARENT:
        text = fs.read_optional(TransparentSetting(option).file)
        if text is not None:
            yield option, active_word(text)


def _mounts(policy: HugepagesPolicy, originals: Values) -> dict[MountSetting, HugetlbMount]:
    """Mounts that matter: what is asked for, and those that the originals tell of."""
    kept = [one for one in setting_types.parse(originals) if isinstance(one, MountSetting)]
    return {
        **{setting: HugetlbMount(setting.path) for setting in kept},
        **{MountSetting(size, mount.path): mount for size, mount in policy.mounts.items()},
    }


def _mounted(
    fs: KernelFS, wanted: Mapping[MountSetting, HugetlbMount]
) -> dict[MountSetting, HugetlbMount | NotMounted]:
    if not wanted:
        return {}
    there = mounts.read(fs, default_size(fs))
    return {
        setting: mounts.found(fs, mount, setting.size_kib, there)
        for setting, mount in wanted.items()
    }


def default_size(fs: KernelFS) -> int:
    """KiB of pages of a mount that names no size."""
    return topology.meminfo(fs).get("Hugepagesize", 0)
