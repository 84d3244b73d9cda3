# SPDX-License-Identifier: GPL-2.0-or-later
"""What an advice depends on: the nodes now, and the guests that run on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from tuned_virt.kernel import cpuset
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.topology import memory_nodes, nodes, partitions
from tuned_virt.model.topology.huge_pages import pools_of
from tuned_virt.numad.advice import Node, Running

CPUS = "/sys/devices/system/cpu"
NOT_GUESTS = (f"{CPUS}/isolated", f"{CPUS}/nohz_full")
"""CPUs that only dedicated guests use, where there are others."""

BASE_PAGE_KIB = 64
"""Pages up to this size are a kernel's base pages."""


def read(fs: KernelFS) -> list[Node]:
    """The nodes with CPUs that guests may use, and memory, without any guests.

    Raises KernelFileError, and ValueError for what is no list of CPUs.
    """
    with_memory = memory_nodes(fs)
    known = nodes(fs)
    of_node = {node.id: cpuset.parse(node.cpus) for node in known}
    guests = _of_guests(fs, frozenset().union(*of_node.values()))
    numbers = [node.id for node in known]
    found = []
    for node in known:
        cpus = of_node[node.id] & guests
        if not cpus or (with_memory and node.id not in with_memory):
            continue
        pools = sum(
            one.free * one.size_kib for one in pools_of(fs, node.id) if one.size_kib > BASE_PAGE_KIB
        )
        found.append(
            Node(
                node.id,
                cpus,
                available=(node.free + node.cache) // 1024,
                distances=dict(zip(numbers, node.distances)),
                cores=_cores(fs, cpus),
                pools=pools // 1024,
            )
        )
    return found


def _of_guests(fs: KernelFS, online: frozenset[int]) -> frozenset[int]:
    """CPUs on which guests float that name no partition of their own."""
    lists = (fs.read_optional(file) or "" for file in NOT_GUESTS)
    kept = frozenset[int]().union(*map(cpuset.parse_or_null, lists))
    allowed = partitions.of(partitions.read(fs, online), partitions.MACHINE)
    usual = online if allowed is None else online & allowed
    return usual - kept or usual


def _cores(fs: KernelFS, cpus: Collection[int]) -> int:
    """Cores of some CPUs; CPUs whose siblings are not told are cores."""
    left, cores = set(cpus), 0
    while left:
        one = min(left)
        text = fs.read_optional(f"{CPUS}/cpu{one}/topology/thread_siblings_list") or str(one)
        left -= {one, *cpuset.parse(text)}
        cores += 1
    return cores


def with_guests(nodes_of: Iterable[Node], running: Iterable[Running]) -> tuple[list[Node], float]:
    """The nodes with the vCPUs that run there, and the number of those that may run on all nodes;
    what may run on several counts in part on each."""
    known = list(nodes_of)
    vcpus = Counter(mask for guest in running for mask in guest.masks)
    masks = [sum(1 << cpu for cpu in node.cpus) for node in known]
    load, floating = [0.0] * len(known), 0.0
    for mask, number in vcpus.items():
        parts = _parts(mask, masks)
        if len(parts) == len(known) > 1:
            floating += number
            continue
        total = sum(parts.values())
        for at, part in parts.items():
            load[at] += number * part / total
    return [node._replace(vcpus=round(some, 6)) for node, some in zip(known, load)], floating


def _parts(mask: int, masks: list[int]) -> dict[int, int]:
    """Of a mask that on each of several; for one alone that is all of it."""
    parts = {}
    for at, node in enumerate(masks):
        here = mask & node
        if here and here == mask:
            return {at: 1}
        if here:
            parts[at] = bin(here).count("1")
    return parts
