# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts of all kinds, made up by hypothesis; each is a Host as its readers should read it.

What varies: packages, dies, NUMA nodes and last-level caches, each laid over the cores by itself so
that a cache spans nodes or a node spans packages; threads of a core; cores of two kinds; the order
and the gaps in which firmware numbers CPUs and nodes; CPUs that are offline, isolated or without
tick; nodes without CPUs (CXL, GPUs), without memory, without both; memory, huge pages, distances,
and the nodes of devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable, TypeVar

from hypothesis import strategies as st

from tuned_virt.model.topology import Cache, CpuDetail, Host, NumaNode

Draw = Callable[[st.SearchStrategy[Any]], Any]
Item = TypeVar("Item")

GIB = 1 << 20
EFFICIENT = 512
"""Capacity of the slower kind, as the reader has it for Intel's hybrid CPUs."""


@dataclass(frozen=True)
class Core:
    """Its threads, and the places in order of what it is part of."""

    threads: tuple[int, ...]
    package: int
    die: int
    node: int
    cache: int
    efficient: bool = False


def parts(length: int, count: int) -> list[int]:
    """The part of each of so many things, in so many parts of nearly one size."""
    return [place * count // length for place in range(length)]


def numbered(counts: Sequence[int], order: str) -> list[tuple[int, ...]]:
    """CPU numbers of cores with so many threads: siblings together, or all first threads first,
    or the cores dealt out in turn, as firmware does that deals them out over the nodes."""
    cores = list(range(len(counts)))
    if order == "dealt":
        half = (len(cores) + 1) // 2
        cores = [core for pair in zip(cores[:half], cores[half:]) for core in pair]
        cores += [core for core in range(len(counts)) if core not in cores]
    slots = [(core, thread) for core in cores for thread in range(counts[core])]
    if order != "together":
        slots.sort(key=lambda slot: slot[1])
    place = {slot: number for number, slot in enumerate(slots)}
    return [tuple(place[core, n] for n in range(count)) for core, count in enumerate(counts)]


@st.composite
def layouts(draw: Draw, pairs: bool) -> list[Core]:
    """The cores of a host; with pairs each has two threads."""
    count = draw(st.sampled_from([1, 2, 3, 4, 6, 8, 8, 12, 16, 24, 40]))
    threads = draw(st.sampled_from([1, 1, 2, 2, 2, 4, 8] if count <= 16 else [1, 2, 2]))
    slow = draw(st.sampled_from([0, 0, 0, count // 2]))
    threads, slow = (2, 0) if pairs else (threads, slow)
    counts = [threads if core < count - slow else 1 for core in range(count)]
    upto = {name: draw(st.integers(1, min(count, most))) for name, most in MOST.items()}
    of = {name: parts(count, number) for name, number in upto.items()}
    if not draw(st.booleans()):  # usually a node is inside one package, and a cache inside one node
        of["node"] = parts(count, max(upto["package"], upto["node"]))
        of["cache"] = parts(count, max(upto["node"], upto["cache"]))
    numbers = numbered(counts, draw(st.sampled_from(["together", "apart", "dealt"])))
    stride, gap = draw(st.sampled_from([(1, 0), (1, 0), (2, 0), (4, 0), (1, 7)]))
    numbers = [tuple(cpu * stride + gap * (cpu > 1) for cpu in core) for core in numbers]
    return [
        Core(
            numbers[core],
            of["package"][core],
            of["die"][core],
            of["node"][core],
            of["cache"][core],
            efficient=core >= count - slow,
        )
        for core in range(count)
    ]


MOST = {"package": 4, "die": 6, "node": 6, "cache": 10}


@st.composite
def hosts(draw: Draw, *, pairs: bool = False) -> Host:
    """Any host; with pairs one whose cores all have two threads online."""
    cores = draw(layouts(pairs))
    with_cpus = 1 + max(core.node for core in cores)
    without = draw(st.sampled_from([0, 0, 0, 1, 2, 4]))
    total = with_cpus + without
    if draw(st.booleans()):
        numbers = list(range(total))
    else:
        numbers = sorted(draw(st.sets(st.integers(0, 40), min_size=total, max_size=total)))
    order = draw(st.permutations(numbers)) if draw(st.booleans()) else numbers
    offline = _some(draw, [cpu for core in cores for cpu in core.threads], most=0.7)
    cpus = dict(_cpus(cores, order, offline))
    if not cpus or pairs:
        cpus, offline = dict(_cpus(cores, order, frozenset())), frozenset()
    if not draw(st.booleans()):
        cpus = {cpu: replace(detail, capacity=1024) for cpu, detail in cpus.items()}
    nodes = list(_nodes(draw, cores, order))
    host = Host(
        nodes=tuple(sorted(nodes, key=lambda node: node.id)),
        cpus=cpus,
        caches=_caches(cores, frozenset(cpus))[draw(st.sampled_from([0, 0, 0, 1, 10])) :],
        offline=offline,
        isolated=_some(draw, sorted(cpus), most=1),
        nohz_full=_some(draw, sorted(cpus), most=0.5),
        arch=draw(st.sampled_from(["x86_64", "aarch64", "s390x", "ppc64le"])),
        huge_page=draw(st.sampled_from([2048, 512 * 1024])),
    )
    return _with_devices(draw, _with_distances(draw, host))


def _some(draw: Draw, items: Sequence[int], most: float) -> frozenset[int]:
    """Usually none of them."""
    if draw(st.integers(0, 3)):
        return frozenset()
    chosen = draw(st.sets(st.sampled_from(items), min_size=1))
    return frozenset(sorted(chosen)[: max(1, int(most * len(items)))])


def _cpus(
    cores: Sequence[Core], order: Sequence[int], offline: frozenset[int]
) -> Iterator[tuple[int, CpuDetail]]:
    for number, core in enumerate(cores):
        siblings = frozenset(core.threads) - offline
        for cpu in sorted(siblings):
            capacity = EFFICIENT if core.efficient else 1024
            node, place = order[core.node], (core.package, core.die, number)
            yield cpu, CpuDetail(cpu, node, *place, siblings, capacity)


def _caches(cores: Sequence[Core], online: frozenset[int]) -> tuple[Cache, ...]:
    by_place: dict[int, frozenset[int]] = {}
    for core in cores:
        cpus = frozenset(core.threads) & online
        by_place[core.cache] = by_place.get(core.cache, frozenset()) | cpus
    found = (Cache(cpus, 32 << 10) for cpus in by_place.values() if cpus)
    return tuple(sorted(found, key=lambda cache: min(cache.cpus)))


def _nodes(draw: Draw, cores: Sequence[Core], order: Sequence[int]) -> Iterator[NumaNode]:
    """In a host without memory in any node, as some firmware has it, the readers know of none."""
    even = draw(st.sampled_from([0, 1, 1, 1, 64])) * GIB
    uneven, pooled = draw(st.booleans()), draw(st.booleans())
    for place, number in enumerate(order):
        own = frozenset(cpu for core in cores if core.node == place for cpu in core.threads)
        memory = draw(st.sampled_from([0, GIB // 2, GIB, 3 * GIB, 64 * GIB])) if uneven else even
        pool = draw(st.sampled_from([0, 0, memory // 4096])) if pooled else 0
        free = pool // draw(st.sampled_from([1, 2, 4]))
        pages = {2048: pool, 1 << 20: 0} if pooled else {}
        available = memory - 2048 * pool
        yield NumaNode(
            number, own, memory, {}, pages, available, {**pages, 2048: free} if pages else {}
        )


def _with_distances(draw: Draw, host: Host) -> Host:
    kind = draw(st.sampled_from(["none", "equal", "ring", "any"]))
    if kind == "none":
        return host
    ids = [node.id for node in host.nodes]
    far = st.integers(11, 60)

    def distance(one: int, other: int) -> int:
        apart = abs(one - other)
        if not apart:
            return 10
        if kind == "ring":
            return 10 + 6 * min(apart, len(ids) - apart)
        return 21 if kind == "equal" else int(draw(far))

    nodes = tuple(
        replace(node, distances={to: distance(place, other) for other, to in enumerate(ids)})
        for place, node in enumerate(host.nodes)
    )
    return replace(host, nodes=nodes)


def _with_devices(draw: Draw, host: Host) -> Host:
    """PCI devices and NVMe disks, on any node."""
    homes = draw(st.lists(st.sampled_from([node.id for node in host.nodes]), max_size=4))
    devices = {f"0000:{0x3B + bus:02x}:00.0": home for bus, home in enumerate(homes)}
    disks = {f"nvme{n}n1": home for n, home in enumerate(homes)} if draw(st.booleans()) else {}
    return replace(host, devices=devices, disks=disks)
