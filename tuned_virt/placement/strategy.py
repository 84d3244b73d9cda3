# SPDX-License-Identifier: GPL-2.0-or-later
"""The two ways to place a guest: on CPUs of its own, or floating over those that guests share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import ClassVar

from tuned_virt.placement.assignment import Assignment, NodeChoice, assigned, reserve
from tuned_virt.placement.cores import VcpuShape, fit, seat
from tuned_virt.placement.demand import GuestDemand
from tuned_virt.placement.host_capacity import UNCAPPED, Attempt, HostCapacity, VcpusByNode
from tuned_virt.placement.model import PlacementKind
from tuned_virt.placement.node_capacity import TINY, count
from tuned_virt.placement.policy import Smt

Score = tuple[float, ...]
"""Smaller is better: distance of PCI devices, of what the owner has put somewhere and of the memory
of a node without any, KiB of memory on other nodes (the reverse where that memory cannot move),
then as the strategy says."""


DEVICES_KEPT = (
    "{} PCI devices there, compared with {}: nodes with devices are left to guests that have some"
)
"""Why a guest without devices is not on a node with some, where all else is equal."""


class Strategy(ABC):
    """One guest to be placed in one way, on a host as it is now."""

    kind: ClassVar[PlacementKind]

    def __init__(self, capacity: HostCapacity, wanted: GuestDemand) -> None:
        self.capacity = capacity
        self.wanted = wanted
        self.policy = wanted.policy

    @property
    def attempt(self) -> Attempt:
        """Equal for guests that this finds room for alike."""
        return self.kind, self.wanted.shape

    def ties(self, node_index: int) -> tuple[int, int]:
        """What a node costs the guest whichever way it is placed: see `Score`."""
        guest, capacity = self.wanted.guest, self.capacity
        far = capacity.device_distance(guest, node_index)
        far += capacity.beyond(self.wanted.whole, node_index) if self.wanted.uniform else 0
        elsewhere = capacity.to_move(guest, node_index)
        return (far, elsewhere) if guest.movable else (elsewhere, far)

    @property
    def tied(self) -> bool:
        """Whether any node costs it that: asked once, as `rate` runs for each guest and node."""
        guest = self.wanted.guest
        wanted = self.wanted.whole.allowed or self.capacity.lacks_memory
        return bool(guest.tied or guest.resident or wanted)

    def keeps(self, node_index: int, vcpus: int) -> bool:
        """Whether so many that are on a node may stay."""
        return self.free_vcpus(node_index) >= vcpus

    @abstractmethod
    def free_vcpus(self, node_index: int) -> int:
        """vCPUs that a node has room for."""

    def drawback(self, node_index: int) -> int:
        """What speaks against a node, of several for one guest, before how near they are."""
        del node_index
        return 0

    @abstractmethod
    def rate(self, possible: list[int]) -> Iterator[tuple[Score, int]]:
        """Those of the nodes that have room for all vCPUs, with their scores."""

    @abstractmethod
    def reason(self, decided: int, best: float, second: float) -> str:
        """Why one score is better, by the entry beyond the ties that decides."""

    def levelled(self, vcpus_by_node: VcpusByNode) -> VcpusByNode:
        """A cut over several nodes, as even as this way wants it."""
        return vcpus_by_node

    @abstractmethod
    def room(self, vcpus: int) -> str:
        """What so many vCPUs need of a node, in words."""

    @property
    def measure(self) -> str:
        """What limits that, where it is not plain."""
        return ""

    def anywhere(self, why: str) -> Assignment | None:
        """Floating over all nodes, reserved; None where that is not for this way."""
        del why
        return None

    @abstractmethod
    def assign(self, choice: NodeChoice) -> Assignment:
        """The assignment of a choice, reserved."""


class Dedicated(Strategy):
    """A CPU for each vCPU.

    Scores: vCPUs on CPUs that are not isolated, where other nodes have such; vCPUs on slower cores;
    the cache that prefer= asks for; LLCs spanned, cores torn apart (first, for a guest with
    threads), CPUs left in the LLC, CPUs left in the node, devices of the node.
    """

    kind = PlacementKind.DEDICATED

    def free_vcpus(self, node_index: int) -> int:
        """See `Strategy`."""
        return self.capacity.nodes[node_index].dedicable(self.wanted.policy.smt, self.wanted.crowds)

    @cached_property
    def _best(self) -> tuple[bool, int]:
        """Whether the host has isolated CPUs, and the capacity of its fastest cores."""
        grids = [node.grid for node in self.capacity.nodes]
        isolation = any(grid.isolated for grid in grids)
        return isolation, max(grid.clusters[0].capacity for grid in grids)

    def drawback(self, node_index: int) -> int:
        """See `Strategy`: no isolated CPUs where the host has some, then slower cores than it
        has."""
        isolation, fastest = self._best
        grid = self.capacity.nodes[node_index].grid
        plain = isolation and not grid.isolated
        return 2 * plain + (grid.clusters[0].capacity < fastest)

    def rate(self, possible: list[int]) -> Iterator[tuple[Score, int]]:
        """See `Strategy`."""
        vcpus, shape = len(self.wanted.whole.vcpus), VcpuShape.of(self.wanted.guest, self.policy)
        nodes, tied = self.capacity.nodes, self.tied
        isolation, fastest = self._best
        devices = self.capacity.devices_kept(self.wanted.guest)
        for node_index in possible:
            node = nodes[node_index]
            if node.free_count >= vcpus and self.free_vcpus(node_index) >= vcpus:
                slower, lean, spans, torn, over = fit(node, vcpus, shape)
                slower = slower if node.grid.clusters[0].capacity == fastest else vcpus
                first = (torn, spans) if shape.threads > 1 else (spans, torn)
                ties = self.ties(node_index) if tied else (0, 0)
                plain = vcpus if isolation and not node.grid.isolated else 0
                left = node.free_count - vcpus
                score = (*ties, plain, slower, lean, *first, over, left, devices[node_index])
                yield score, node_index

    def reason(self, decided: int, best: float, second: float) -> str:
        """See `Strategy`."""
        words = [
            "it spans {} LLCs, compared with {}",
            "{} of its cores used only in part, compared with {}",
        ]
        if self.wanted.guest.threads > 1:
            words.reverse()
        words = [
            "{} of its vCPUs on CPUs that are not isolated, compared with {}",
            "{} of its vCPUs on slower cores, compared with {}",
            "LLCs of {} KiB, compared with {}",
            *words,
            "{} CPUs of an LLC left over, compared with {}",
            "{} free CPUs left over, compared with {}",
            DEVICES_KEPT,
        ]
        number = abs(int(best))
        return _counted(words[decided], number).format(number, abs(int(second)))

    def room(self, vcpus: int) -> str:
        """See `Strategy`."""
        one, more = {
            Smt.PREFER: ("1 CPU", f"{vcpus} CPUs"),
            Smt.REQUIRE: ("1 CPU of a whole SMT core", f"{vcpus} CPUs of whole SMT cores"),
            Smt.ISOLATE: ("1 whole core", f"{vcpus} whole cores"),
        }[self.wanted.policy.smt]
        return f"{one if vcpus == 1 else more} that can be dedicated"

    def assign(self, choice: NodeChoice) -> Assignment:
        """See `Strategy`; CPUs are chosen."""
        wanted, capacity = self.wanted, self.capacity
        made = assigned(wanted, self.kind, choice)
        cpus: dict[int, int] = {}
        masks = {}
        for node_index, vcpus in choice.vcpus_by_node.items():
            node = capacity.nodes[node_index]
            seated, idle = seat(node, vcpus, wanted.guest, wanted.policy)
            masks[node_index] = idle | sum(1 << bit for bit in seated.values())
            cpus.update({vcpu: node.grid.cpus[bit] for vcpu, bit in seated.items()})
        made.cpus, made.masks = cpus, masks
        made.why += self._caches(made)
        return reserve(capacity, made)

    def _caches(self, made: Assignment) -> str:
        """Which last-level caches those are, where the host's differ in size; "" where not."""
        capacity = self.capacity
        sizes = {one.cache for node in capacity.grid.nodes for one in node.clusters}
        if 0 in sizes or len(sizes) == 1:
            return ""
        where = capacity.grid.where
        used = {
            one.cache
            for cpu in made.cpus.values()
            for one in capacity.grid.nodes[where[cpu][0]].clusters
            if one.mask >> where[cpu][1] & 1
        }
        asked = f"prefer={self.policy.prefer.value}"
        return f"; LLC of {_mib(used)}, this host has {_mib(sizes)} ({asked})"


def _counted(words: str, number: int) -> str:
    """Words that begin with so many of something."""
    for several in ("CPUs", "PCI devices", "free CPUs"):
        if number == 1 and words.startswith(f"{{}} {several}"):
            return words.replace(several, several[:-1], 1)
    return words.replace("{} LLCs", "{} LLC", 1) if number == 1 else words


def _mib(sizes: Iterable[int]) -> str:
    return " and ".join(f"{size / 1024:g}" for size in sorted(sizes)) + " MiB"


class Floating(Strategy):
    """vCPUs float over a node's shared CPUs.

    Scores: the node's load with the guest, in shared CPUs needed per shared CPU; its devices.
    """

    kind = PlacementKind.SHARED

    def free_vcpus(self, node_index: int) -> int:
        """See `Strategy`."""
        return min(self._floatable(node_index), self._own_cpus[node_index])

    def keeps(self, node_index: int, vcpus: int) -> bool:
        """See `Strategy`."""
        return self._floatable(node_index) >= vcpus

    def crowded(self, _node_index: int) -> bool:
        """Whether guests of a node now lose what would be theirs if nobody were pinned: not where
        `overcommit` says how many a node takes."""
        return False

    def _floatable(self, node_index: int) -> int:
        if self.capacity.uncapped:
            return UNCAPPED
        return int(self.capacity.nodes[node_index].floatable(self.wanted.policy.vcpus_per_cpu))

    @cached_property
    def _own_cpus(self) -> Mapping[int, int]:
        """Most vCPUs of one guest by node, so that none waits for another of its own while CPUs of
        other nodes are left: the node's CPUs, or its part of a guest that is wider than the host.

        What was shared before anything was dedicated: a plan made again must find the same.
        """
        nodes, vcpus = self.capacity.nodes, len(self.wanted.whole.vcpus)
        cpus = {at: count(node.shared_at_first) for at, node in enumerate(nodes)}
        if self.capacity.uncapped:
            return dict.fromkeys(cpus, UNCAPPED)
        total = sum(cpus[at] for at in self.capacity.nodes_for(self.wanted)) or 1
        return {at: max(number, -(-vcpus * number // total)) for at, number in cpus.items()}

    def rate(self, possible: list[int]) -> Iterator[tuple[Score, int]]:
        """See `Strategy`."""
        need, vcpus, own = self.wanted.cpus, len(self.wanted.whole.vcpus), self._own_cpus
        nodes, uncapped, tied = self.capacity.nodes, self.capacity.uncapped, self.tied
        devices = self.capacity.devices_kept(self.wanted.guest)
        for node_index in possible:
            node = nodes[node_index]
            load = node.load + need
            if uncapped or (load <= node.shared_count + TINY and vcpus <= own[node_index]):
                ties = self.ties(node_index) if tied else (0, 0)
                full = round(load / (node.shared_count or 1), 6)
                yield (*ties, full, devices[node_index]), node_index

    def reason(self, decided: int, best: float, second: float) -> str:
        """See `Strategy`."""
        if decided:
            return _counted(DEVICES_KEPT, int(best)).format(int(best), int(second))
        return f"it would be {100 * best:.0f} % full, not {100 * second:.0f} %"

    def room(self, vcpus: int) -> str:
        """See `Strategy`."""
        return f"{vcpus} free vCPU{'s' if vcpus > 1 else ''}"

    def assign(self, choice: NodeChoice) -> Assignment:
        """See `Strategy`."""
        return reserve(self.capacity, assigned(self.wanted, self.kind, choice))


class Crowding(Floating):
    """vCPUs of one guest may be more than a node's CPUs, as far as `overcommit` has it: where no
    other way is left."""

    @property
    def attempt(self) -> Attempt:
        """See `Strategy`."""
        return self.kind, ("crowding", self.wanted.shape)

    @cached_property
    def _own_cpus(self) -> Mapping[int, int]:
        return dict.fromkeys(range(len(self.capacity.nodes)), UNCAPPED)
