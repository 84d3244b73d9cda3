# SPDX-License-Identifier: GPL-2.0-or-later
"""What only sysfs knows of a host, laid over what libvirt says; or all of it, without libvirt.

Kernel documents: Documentation/ABI/stable/sysfs-devices-system-cpu, …-node, and
Documentation/admin-guide/cputopology.rst. Old kernels have masks where new ones have lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from tuned_virt.kernel import cpuset
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.topology import partitions
from tuned_virt.model.topology.grid import ALIKE, EFFICIENT
from tuned_virt.model.topology.host import LOCAL, Cache, CpuDetail, Host, HostError, NumaNode
from tuned_virt.model.topology.huge_pages import pools_of
from tuned_virt.model.topology.memory import CACHE, NODES, fields, meminfo, node_numbers

CPUS = "/sys/devices/system/cpu"
PCI = "/sys/bus/pci/devices"
MEDIATED = "/sys/bus/mdev/devices"
VDPA = "/sys/bus/vdpa/devices"
HYBRID = "/sys/devices/cpu_atom/cpus"
"""Efficient cores of a hybrid Intel CPU; the others are in cpu_core."""


def read(fs: KernelFS) -> Host:
    """The host by sysfs alone. Raises HostError where there is none."""
    present = _present(fs)
    if not present:
        raise HostError(f"{CPUS} has no CPU")
    offline = _offline(fs, present)
    of_node = _cpus_of_nodes(fs, present)
    nodes = tuple(_nodes(fs, of_node)) or (_whole(fs, present),)
    where = {cpu: node.id for node in nodes for cpu in node.cpus}
    placed = sorted(where.keys() - offline)
    modules = _has_modules(fs)
    cpus = {cpu: _cpu(fs, cpu, where[cpu], frozenset(placed), modules) for cpu in placed}
    left_out = {
        "NUMA nodes have only CPUs of other nodes": len(node_numbers(fs)) - len(of_node),
        "online CPUs are in no NUMA node": len(present - offline - where.keys()),
    }
    notes = tuple(f"{count} {what}: left out" for what, count in left_out.items() if count)
    return overlay(Host(nodes, cpus, _caches(fs, cpus), offline, notes=notes), fs)


def overlay(host: Host, fs: KernelFS) -> Host:
    """The host with what sysfs says of it: CPUs online now, isolated and without tick, kinds of
    cores, free memory and huge pages by node, nodes of PCI devices and disks, guests' cpusets."""
    if not fs.exists(CPUS):
        return host
    offline = _offline(fs, frozenset(host.cpus))
    capacities = _capacities(fs, frozenset(host.cpus))
    cpus = {
        number: replace(
            cpu, siblings=cpu.siblings - offline, capacity=capacities.get(number, cpu.capacity)
        )
        for number, cpu in host.cpus.items()
        if number not in offline
    }
    devices = dict(_devices(fs))
    mediated = dict(_below(fs, MEDIATED, devices))
    vdpa = {
        name: node
        for parent, node in _below(fs, VDPA, devices)
        for name in fs.names(f"{VDPA}/{parent}")
        if name.startswith("vhost-vdpa-")
    }
    return replace(
        host,
        nodes=measured(host, fs),
        cpus=cpus,
        caches=host.caches or _caches(fs, cpus),
        offline=host.offline | offline,
        isolated=_list(fs, f"{CPUS}/isolated") & cpus.keys(),
        nohz_full=_list(fs, f"{CPUS}/nohz_full") & cpus.keys(),
        devices={**devices, **mediated, **vdpa},
        disks=dict(_below(fs, "/sys/block", devices)),
        huge_page=meminfo(fs).get("Hugepagesize", host.huge_page),
        cpusets=partitions.read(fs, cpus.keys()),
    )


# --- CPUs -----------------------------------------------------------------------------------------


def _list(fs: KernelFS, path: str) -> frozenset[int]:
    """A file's list; nothing where there is none, or the kernel writes words (" (null)")."""
    return _parsed(path, fs.read_optional(path) or "")


def _set(fs: KernelFS, *paths: str) -> frozenset[int]:
    """The first of the files that is there: a list if its name says so, else a mask."""
    for path in paths:
        text = fs.read_optional(path)
        if text is not None:
            return _parsed(path, text)
    return frozenset()


def _parsed(path: str, text: str) -> frozenset[int]:
    """Some captured files end in a NUL."""
    is_mask = path.endswith(("_map", "map", "siblings", "core_cpus"))
    try:
        return (cpuset.parse_mask if is_mask else cpuset.parse)(text.strip("\0\n"))
    except ValueError:
        return frozenset()


def _present(fs: KernelFS) -> frozenset[int]:
    names = (re.fullmatch(r"cpu(\d+)", name) for name in fs.names(CPUS))
    return frozenset(int(name[1]) for name in names if name)


def _offline(fs: KernelFS, cpus: frozenset[int]) -> frozenset[int]:
    online = fs.read_optional(f"{CPUS}/online")
    if online:
        return cpus - _list(fs, f"{CPUS}/online")
    return frozenset(cpu for cpu in cpus if fs.read_optional(f"{CPUS}/cpu{cpu}/online") == "0")


def _cpus_of_nodes(fs: KernelFS, present: frozenset[int]) -> dict[int, frozenset[int]]:
    """Node → CPUs. Of firmware that gives several nodes the same CPUs the first node is believed,
    and one that has only CPUs of others is left out, as hwloc does."""
    found: dict[int, frozenset[int]] = {}
    taken = frozenset[int]()
    for number in node_numbers(fs):
        folder = f"{NODES}/node{number}"
        cpus = _set(fs, f"{folder}/cpulist", f"{folder}/cpumap") & present
        if not cpus or cpus - taken:
            found[number] = cpus - taken
            taken |= cpus
    return found


def _has_modules(fs: KernelFS) -> bool:
    """Whether old kernels call the two cores of an AMD module (family 15h) threads of one core."""
    text = fs.read_optional("/proc/cpuinfo") or ""
    return "AuthenticAMD" in text and re.search(r"^cpu family\s*: 21$", text, re.M) is not None


def _cpu(fs: KernelFS, cpu: int, node: int, online: frozenset[int], modules: bool) -> CpuDetail:
    folder = f"{CPUS}/cpu{cpu}/topology"
    names = ("core_cpus_list", "thread_siblings_list", "core_cpus", "thread_siblings")
    siblings = frozenset[int]() if modules else _set(fs, *(f"{folder}/{name}" for name in names))
    package = fs.read_number(f"{folder}/physical_package_id")
    if package < 0:
        others = _set(fs, f"{folder}/core_siblings_list", f"{folder}/core_siblings")
        package = min(others, default=cpu)
    return CpuDetail(
        id=cpu,
        node=node,
        socket=package,
        die=max(0, fs.read_number(f"{folder}/die_id")),
        core=fs.read_number(f"{folder}/core_id"),
        siblings=siblings & online | {cpu},
    )


def _capacities(fs: KernelFS, cpus: frozenset[int]) -> dict[int, int]:
    """Only where cores differ."""
    found = dict.fromkeys(_list(fs, HYBRID) & cpus, EFFICIENT)
    if not found:
        found = _numbers(fs, cpus, "cpu_capacity") or _by_clock(fs, cpus)
    return {cpu: capacity for cpu, capacity in found.items() if capacity > 0}


def _by_clock(fs: KernelFS, cpus: frozenset[int]) -> dict[int, int]:
    """Where the kernel says nothing: by the highest clock, if it tells two kinds apart.

    So it does AMD's dense cores (Zen 4c and 5c) beside others; cores of one kind differ by less.
    """
    clocks = _numbers(fs, cpus, "cpufreq/cpuinfo_max_freq")
    known = [clock for clock in clocks.values() if clock > 0]
    if not known or min(known) >= ALIKE * max(known):
        return {}
    return {cpu: 1024 * clock // max(known) for cpu, clock in clocks.items()}


def _numbers(fs: KernelFS, cpus: frozenset[int], name: str) -> dict[int, int]:
    """A file of each CPU; nothing where the first has none."""
    if not fs.exists(f"{CPUS}/cpu{min(cpus, default=0)}/{name}"):
        return {}
    return {cpu: fs.read_number(f"{CPUS}/cpu{cpu}/{name}") for cpu in cpus}


def _caches(fs: KernelFS, cpus: Mapping[int, CpuDetail]) -> tuple[Cache, ...]:
    """The caches of the highest level that any CPU has, of those that hold data.

    ia64 said nothing of which CPUs share them: then it is the core's.
    """
    by_level: dict[int, dict[frozenset[int], Cache]] = {}
    for cpu, detail in cpus.items():
        for folder in fs.glob(f"{CPUS}/cpu{cpu}/cache/index[0-9]*"):
            if fs.read_optional(f"{folder}/type") in {"Data", "Unified"}:
                shared = _set(fs, f"{folder}/shared_cpu_list", f"{folder}/shared_cpu_map")
                size = re.match(r"\d+", fs.read_optional(f"{folder}/size") or "")
                level = by_level.setdefault(fs.read_number(f"{folder}/level"), {})
                sharing = frozenset(shared.intersection(cpus)) or detail.siblings
                level.setdefault(sharing, Cache(sharing, int(size[0]) if size else 0))
    if not by_level:
        return ()
    return tuple(sorted(by_level[max(by_level)].values(), key=lambda cache: min(cache.cpus)))


# --- nodes ----------------------------------------------------------------------------------------


def _whole(fs: KernelFS, present: frozenset[int]) -> NumaNode:
    """Without NUMA in the kernel, node 0 has everything."""
    return NumaNode(0, present, meminfo(fs).get("MemTotal", 0), {0: LOCAL}, _pools(fs, None)[0])


def _nodes(fs: KernelFS, cpus: Mapping[int, frozenset[int]]) -> Iterator[NumaNode]:
    numbers = node_numbers(fs)
    for number in cpus:
        row = (fs.read_optional(f"{NODES}/node{number}/distance") or "").split()
        memory = fields(fs.read_optional(f"{NODES}/node{number}/meminfo") or "")
        yield NumaNode(
            id=number,
            cpus=cpus[number],
            memory=memory.get("MemTotal", 0),
            distances=dict(zip(numbers, map(int, row))) if len(row) == len(numbers) else {},
            pages=_pools(fs, number)[0],
        )


def measured(host: Host, fs: KernelFS) -> tuple[NumaNode, ...]:
    """A host's nodes with what memory and huge pages are free now."""
    return tuple(_measured(fs, node, len(host.nodes)) for node in host.nodes)


def _measured(fs: KernelFS, node: NumaNode, nodes: int) -> NumaNode:
    """With its free memory and pages; a kernel without NUMA has them for the whole machine."""
    alone = nodes == 1 and not fs.exists(f"{NODES}/node{node.id}")
    text = fs.read_optional("/proc/meminfo" if alone else f"{NODES}/node{node.id}/meminfo")
    if text is None:
        return node
    memory = fields(text)
    total, free = _pools(fs, None if alone else node.id)
    return replace(
        node,
        available=sum(memory.get(name, 0) for name in ("MemFree", *CACHE)),
        pages={**node.pages, **total},
        free_pages=free,
    )


def _pools(fs: KernelFS, node: int | None) -> tuple[dict[int, int], dict[int, int]]:
    """Huge pages by size in KiB: all of the pool, and free ones."""
    found = pools_of(fs, node)
    total = {pool.size_kib: pool.total for pool in found}
    return total, {pool.size_kib: pool.free for pool in found}


# --- devices --------------------------------------------------------------------------------------


def _devices(fs: KernelFS) -> Iterator[tuple[str, int]]:
    """PCI address → node; -1, which is no node, means that the firmware says none."""
    for address in sorted(fs.names(PCI)):
        node = fs.read_optional(f"{PCI}/{address}/numa_node")
        if node and node.isdecimal():
            yield address, int(node)


def _below(fs: KernelFS, folder: str, devices: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Block, mediated or vDPA device → node of the last PCI device on its path that has one."""
    for name in sorted(fs.names(folder)):
        path = fs.link(f"{folder}/{name}") or ""
        addresses = re.findall(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", path)
        nodes = [devices[address] for address in addresses if address in devices]
        if nodes:
            yield name, nodes[-1]
