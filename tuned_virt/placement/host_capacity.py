# SPDX-License-Identifier: GPL-2.0-or-later
"""A host while a plan is made: what is free on it, and what its nodes would cost a guest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cached_property

from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Host
from tuned_virt.placement import core_yield
from tuned_virt.placement.core_yield import CoreYield
from tuned_virt.placement.demand import GuestDemand, GuestPart
from tuned_virt.placement.model import PlacementKind
from tuned_virt.placement.node_capacity import MemoryShare, NodeCapacity, NodeMemory, count

UNCAPPED = 1 << 30

VcpusByNode = Mapping[int, tuple[int, ...]]
"""Index of a node in the grid → vCPUs there."""

Attempt = tuple[PlacementKind, Hashable]
"""A way to place a guest, and the guest's shape."""

NOWHERE: Mapping[int, int] = {}
"""No vNUMA cell without vCPUs has a node of its own."""


class HostCapacity:
    """The CPUs of a host's nodes and their memory.

    uncapped     it is one node of which nothing is anybody's own: to float there confines nobody,
                 so all guests may, whatever overcommit says
    unplaceable  attempts that found no room: while nodes only fill up, others like them need not
                 be tried
    lacking      attempts to dedicate CPUs that found none → why
    floating     shared CPUs that all guests need, placed yet or not, but for those whose vCPUs have
                 dedicated ones
    """

    def __init__(self, host: Host, nodes: list[NodeCapacity], memory: NodeMemory) -> None:
        self.host = host
        self.grid = host.grid
        self.nodes = nodes
        self.memory = memory
        self.uncapped = False
        self.unplaceable: set[Attempt] = set()
        self.lacking: dict[Attempt, str] = {}
        self.floating = 0.0
        self._owners = sum(node.load for node in nodes)
        self._owned = sum(count(node.owned) for node in nodes)
        self._yields: dict[tuple[int, ...], CoreYield] = {}
        self._nodes_of_text: dict[str, frozenset[int]] = {}
        self._base: HostCapacity | None = None
        self._masks: dict[frozenset[int], list[int]] = {}
        homes = Counter(node for name, node in host.devices.items() if ":" in name)
        self._devices = [homes[node.id] for node in host.grid.nodes]
        self._no_devices = [0] * len(nodes)

    def mask(self, guest: Guest, node_index: int) -> int | None:
        """CPUs of a node that the cpuset of its control group leaves a guest; None for all."""
        cpus = self.host.allowed(guest.partition)
        if cpus is None:
            return None
        if cpus not in self._masks:
            self._masks[cpus] = [
                sum(1 << bit for bit, cpu in enumerate(node.cpus) if cpu in cpus)
                for node in self.grid.nodes
            ]
        return self._masks[cpus][node_index]

    def within(self, guest: Guest) -> HostCapacity:
        """What of the host a guest may have by the cpuset of its control group: itself where that
        is all, else a view of it as it is now, see `base`."""
        if self.host.allowed(guest.partition) is None:
            return self.base
        view: HostCapacity = object.__new__(HostCapacity)
        view.__dict__.update(self.base.__dict__)
        view.nodes = [
            node.within(self.mask(guest, at) or 0) for at, node in enumerate(self.base.nodes)
        ]
        for name in ("yield_at_first", "owners_pin", "alike"):
            view.__dict__.pop(name, None)
        view._base = self.base
        return view

    @property
    def base(self) -> HostCapacity:
        """The whole host, of which this may be a view: what is taken is taken there."""
        return self._base or self

    def copy(self) -> HostCapacity:
        """Another to try something on."""
        other = HostCapacity(self.host, [node.copy() for node in self.nodes], self.memory.copy())
        other.uncapped = self.uncapped
        other.unplaceable = set(self.unplaceable)
        other.floating, other._owners = self.floating, self._owners
        other._yields, other._nodes_of_text = self._yields, self._nodes_of_text
        return other

    def forget_floating(self) -> None:
        """Attempts to float are tried again: with more guests less is asked of a node."""
        floats = PlacementKind.SHARED
        self.unplaceable = {attempt for attempt in self.unplaceable if attempt[0] is not floats}

    # --- what guests would get that nobody confines ---------------------------------------------

    @cached_property
    def yield_at_first(self) -> CoreYield:
        """What busy threads get of all CPUs before any was dedicated."""
        return self._unconfined(tuple(node.shared_at_first | node.owned for node in self.nodes))

    def _unconfined(self, masks: tuple[int, ...]) -> CoreYield:
        if masks not in self._yields:
            self._yields[masks] = core_yield.together(map(NodeCapacity.yield_of, self.nodes, masks))
        return self._yields[masks]

    @property
    def unconfined_share(self) -> float:
        """Cores for each busy vCPU if all float over all CPUs that are not dedicated."""
        undedicated = self._unconfined(tuple([node.shared | node.owned for node in self.nodes]))
        return undedicated.share(self._owned + self.shared_demand)

    @property
    def shared_demand(self) -> float:
        """Shared CPUs that owners' guests need and those that float."""
        return self._owners + self.floating

    @cached_property
    def owners_pin(self) -> bool:
        """Whether CPUs are kept from guests that float, as owners pinned vCPUs there."""
        return any(node.owned for node in self.nodes)

    @cached_property
    def alike(self) -> bool:
        """Whether all nodes have cores of the same kinds, in equal parts."""
        return len({node.kinds for node in self.nodes if node.shared_at_first | node.owned}) == 1

    @cached_property
    def lacks_memory(self) -> bool:
        """Whether a node with CPUs has no memory."""
        return any(node.memory_node != node.id for node in self.grid.nodes)

    def nodes_of(self, text: str) -> frozenset[int]:
        """Indices of the nodes of a set of CPUs."""
        if text not in self._nodes_of_text:
            where = self.grid.where
            known = (where[cpu][0] for cpu in cpuset.parse(text) if cpu in where)
            self._nodes_of_text[text] = frozenset(known)
        return self._nodes_of_text[text]

    # --- nodes ----------------------------------------------------------------------------------

    def allowed(self, part: GuestPart) -> list[int]:
        """Nodes that its owner's numatune leaves it: of those that it names, those with CPUs."""
        if part.allowed is None:
            return list(range(len(self.nodes)))
        return [
            node_index
            for node_index, node in enumerate(self.grid.nodes)
            if node.memory_node in part.allowed
        ]

    def nodes_for(self, wanted: GuestDemand, part: GuestPart | None = None) -> list[int]:
        """Nodes that may take the guest, or a part of it: for memory that cannot move, of those
        where the guest's memory is; for memory on nodes without CPUs all, see `beyond`."""
        of = part or wanted.whole
        found = self.allowed(of)
        if not found and (part or wanted.uniform) and self._named(of):
            found = list(range(len(self.nodes)))
        guest = wanted.guest
        if not guest.resident or guest.movable:
            return found
        there = [at for at in found if guest.resident.get(self.grid.nodes[at].memory_node)]
        return there or found

    def _named(self, part: GuestPart) -> list[int]:
        """Nodes of this host that the owner's numatune names for a part."""
        return [node.id for node in self.host.nodes if node.id in (part.allowed or ())]

    def home(self, part: GuestPart, node_index: int) -> int:
        """The node of a part's memory, its vCPUs being on a node: that, or the nearest allowed."""
        node = self.grid.nodes[node_index]
        if part.allowed is None or node.memory_node in part.allowed:
            return node.memory_node
        near = ((self.host.distance(node.id, one), one) for one in self._named(part))
        return min(near, default=(0, node.memory_node))[1]

    def beyond(self, part: GuestPart, node_index: int) -> int:
        """How much farther a part's memory is than memory of the node itself: its owner put it
        elsewhere, or the node has none."""
        node = self.grid.nodes[node_index]
        home = self.home(part, node_index)
        if home == node.id:
            return 0
        return self.host.distance(node.id, home) - self.host.distance(node.id, node.id)

    def fits_memory(self, part: GuestPart, node_index: int) -> bool:
        """Whether a part's memory is there for the node."""
        return self.memory.fits(part.memory, part.huge, self.home(part, node_index))

    # --- what memory vCPUs use ------------------------------------------------------------------

    def shares(
        self,
        wanted: GuestDemand,
        vcpus_by_node: VcpusByNode,
        memory_nodes: Sequence[int] = (),
        homes: Mapping[int, int] = NOWHERE,
    ) -> list[MemoryShare]:
        """Memory by node: with the vCPUs; over `memory_nodes`, by their size, where some are; of
        cells without vCPUs as `homes` says."""
        if memory_nodes:
            sizes = [self.host.by_id[memory_node].memory for memory_node in memory_nodes]
            total = sum(sizes)
            portions = [size / total if total else 1 / len(memory_nodes) for size in sizes]
            return [
                _share(wanted.whole, memory_node, part)
                for memory_node, part in zip(memory_nodes, portions)
            ]
        first = next(iter(vcpus_by_node))
        if len(vcpus_by_node) == 1 and not homes and wanted.uniform:
            return [_share(wanted.whole, self.home(wanted.whole, first), 1)]
        parts = wanted.cells or (wanted.whole,)
        fixed = [_share(part, homes[part.cell], 1) for part in parts if part.cell in homes]
        rest = (part for part in parts if part.cell not in homes)
        return fixed + [
            share for part in rest for share in self._part_shares(part, vcpus_by_node, first)
        ]

    def _part_shares(
        self, part: GuestPart, vcpus_by_node: VcpusByNode, first: int
    ) -> Iterable[MemoryShare]:
        """A part without vCPUs that are online goes with the guest's first."""
        own = set(part.vcpus)
        counts = {index: len(own.intersection(vcpus)) for index, vcpus in vcpus_by_node.items()}
        total = sum(counts.values())
        if not total:
            counts, total = {first: 1}, 1
        for node_index, vcpus in counts.items():
            if vcpus:
                yield _share(part, self.home(part, node_index), vcpus / total)

    # --- what nodes cost a guest ---------------------------------------------------------------

    def device_distance(self, guest: Guest, node_index: int) -> int:
        """Sum of the distances beyond local ones of its PCI devices, and of the CPUs to which its
        owner pinned its emulator thread and IOThreads; unknown ones count nothing."""
        if not guest.tied:
            return 0
        node, distance = self.grid.nodes[node_index].id, self.host.distance
        homes = [{self.host.devices.get(device, -1)} for device in guest.devices]
        for cpus in (guest.owned.emulator or (), *guest.owned.iothreads.values()):
            homes.append({self.host.cpus[cpu].node for cpu in cpus if cpu in self.host.cpus})
        return sum(
            min(distance(node, home) for home in known) - distance(node, node)
            for known in (some & self.host.by_id.keys() for some in homes)
            if known
        )

    def devices_kept(self, guest: Guest) -> Sequence[int]:
        """PCI devices by node index, for a guest that has none: where all else is equal it leaves
        their nodes to guests that have some."""
        return self._no_devices if guest.devices else self._devices

    def to_move(self, guest: Guest, node_index: int) -> int:
        """KiB of its memory that is on other nodes now."""
        if not guest.resident:
            return 0
        memory_node = self.grid.nodes[node_index].memory_node
        return sum(kib for node, kib in guest.resident.items() if node != memory_node)


def _share(part: GuestPart, memory_node: int, fraction: float) -> MemoryShare:
    if fraction == 1:
        return MemoryShare(memory_node, part.memory, part.huge)
    huge = {size: pages * fraction for size, pages in part.huge.items()}
    return MemoryShare(memory_node, round(part.memory * fraction), huge)
