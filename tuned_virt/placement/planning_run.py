# SPDX-License-Identifier: GPL-2.0-or-later
"""The making of one plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import replace

from tuned_virt.core.options import BadOptions
from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Host
from tuned_virt.model.topology.grid import GridNode
from tuned_virt.placement import rebalance, user_pins
from tuned_virt.placement.assignment import Assignment
from tuned_virt.placement.demand import GuestDemand, demand
from tuned_virt.placement.host_capacity import HostCapacity
from tuned_virt.placement.model import Placement, PlacementKind, unplaced
from tuned_virt.placement.node_capacity import MemoryShare, NodeCapacity, NodeMemory
from tuned_virt.placement.place_guest import place_guests
from tuned_virt.placement.plan_from_assignments import DecidedPlacements, PlacementResult
from tuned_virt.placement.policy import (
    PlacementMode,
    PlacementPolicy,
    Prefer,
    ignored_wishes,
    policy_for,
)
from tuned_virt.placement.residents import resident
from tuned_virt.placement.retain import promoted, retain

METADATA = "what its metadata asks"
"""What is not granted to a guest whose wishes cannot be understood."""

MOST_SAID = 500
"""Characters of an error about a guest's metadata: a tenant may write a thousand attributes."""

MOST_DEVICES = 5
"""Devices of a guest that are named."""

LEFT_ALONE = PlacementPolicy(policy=PlacementMode.NONE)
"""For guests in no selection."""


class PlanningRun:
    """Guests by key: those that are ours to place as assignments, others as fixed placements."""

    def __init__(self, host: Host, policy: PlacementPolicy | Mapping[str, PlacementPolicy]) -> None:
        self.host = host
        self.policy = policy
        self.warnings = list(host.notes)
        self.guests: dict[str, Guest] = {}
        self.wanted: list[GuestDemand] = []
        self.fixed: dict[str, Placement] = {}
        self.assignments: dict[str, Assignment] = {}
        self.retained: dict[str, Placement] = {}
        self.housekeeping: list[int] = []
        self.capacity: HostCapacity
        self.result: PlacementResult

    def prepare(self, guests: list[Guest]) -> None:
        """Sort guests out, and count what is not ours to place."""
        self.sort_out(guests)
        self.housekeeping = housekeeping(self.host, self.wanted, self.warnings)
        self.capacity = self._capacity()

    def sort_out(self, guests: list[Guest]) -> None:
        """Add guests: demands of those that are ours to place, the others as they are."""
        self.guests = self._known(guests)
        for guest in self.guests.values():
            self._classify(guest)

    def _known(self, guests: list[Guest]) -> dict[str, Guest]:
        """The guests by key, in an order that is the same whatever theirs is."""
        known: dict[str, Guest] = {}
        for guest in sorted(guests, key=lambda guest: (guest.name, guest.key, guest.memory)):
            if guest.key in known:
                self.warnings.append(f"guest {guest.name} is given twice: {guest.key}")
            else:
                known[guest.key] = guest
        return known

    def policy_of(self, guest: Guest) -> PlacementPolicy:
        """The policy that its selection gives a guest."""
        if isinstance(self.policy, PlacementPolicy):
            return self.policy
        return self.policy.get(guest.key, LEFT_ALONE)

    def _classify(self, guest: Guest) -> None:
        if guest.notes:
            self.warnings += [f"guest {guest.name}: {note}" for note in guest.notes]
        unknown = [one for one in guest.devices if one not in self.host.devices]
        if unknown and len(self.host.grid.nodes) > 1:
            self.warnings.append(
                f"guest {guest.name}: the NUMA node of its devices is not known, so it does not"
                f" count: {', '.join(unknown[:MOST_DEVICES])}"
            )
        owner = user_pins.reason(guest, self.host)
        if owner:
            self.fixed[guest.key] = user_pins.placement(guest, self.host, owner)
            return
        try:
            own = policy_for(guest, self.policy_of(guest))
        except BadOptions as error:
            why = f"its metadata is not valid: {str(error)[:MOST_SAID]}"
            self.fixed[guest.key] = unplaced(guest.name, guest.uuid, why, ungranted=METADATA)
            return
        ignored = ignored_wishes(guest, own)
        if ignored:
            self.warnings.append(f"guest {guest.name}: its metadata does not count: {ignored}")
        if own.policy is PlacementMode.NONE:
            left = unplaced(guest.name, guest.uuid, "policy=none", chosen=True)
            self.fixed[guest.key] = replace(left, ignored=ignored) if ignored else left
            return
        self.wanted.append(demand(guest, own, self.host.huge_page))

    # --- the host -------------------------------------------------------------------------------

    def _capacity(self) -> HostCapacity:
        claimed = user_pins.claims(self.host, self.guests.values(), vcpus_per_cpu(self.wanted))
        self.warnings += user_pins.conflicts(self.host, self.guests.values())
        self.warnings += self._confining()
        nodes = []
        for grid, kept, avoided, taken, load in zip(
            self.host.grid.nodes, self.housekeeping, claimed.avoided, claimed.taken, claimed.load
        ):
            nodes.append(NodeCapacity(grid, kept, avoided, taken))
            nodes[-1].load = load
        capacity = HostCapacity(self.host, nodes, NodeMemory(self.host))
        capacity.uncapped = len(nodes) == 1 and not (
            claimed.taken[0] or any(one.dedicated for one in self.wanted)
        )
        capacity.floating = sum(one.cpus for one in self.wanted)
        for key in self.fixed:
            guest = self.guests[key]
            capacity.memory.charge(resident(guest, self.host) or self._where_owned(guest))
        return capacity

    def _confining(self) -> Iterator[str]:
        """Control groups whose cpuset keeps guests off CPUs."""
        for partition in sorted({one.guest.partition for one in self.wanted}):
            cpus = self.host.allowed(partition)
            if cpus is not None:
                yield (
                    f"the cpuset of control group {partition} leaves its guests CPUs"
                    f" {cpuset.text(cpus)}: they are placed on these alone"
                )

    def _where_owned(self, guest: Guest) -> list[MemoryShare]:
        """A guest that does not run: its memory in equal parts on the nodes its owner chose."""
        nodes = set(guest.owned.nodes or self.fixed[guest.key].nodes) & self.host.by_id.keys()
        whole = demand(guest, LEFT_ALONE, self.host.huge_page).whole
        part = 1 / len(nodes) if nodes else 0
        huge = {size: pages * part for size, pages in whole.huge.items()}
        return [MemoryShare(node, round(whole.memory * part), huge) for node in sorted(nodes)]

    # --- placing --------------------------------------------------------------------------------

    def place(self, current: Mapping[str, Placement]) -> None:
        """Retain, place the rest, move what is asked for, and note the result."""
        rest = self._retain(current)
        self.assignments.update(place_guests(self.capacity, rest))
        rebalance.move(self.capacity, self.assignments, self.retained)
        loose = [self.guests[key].name for key in self.fixed if self._is_loose(key)]
        decided = DecidedPlacements(
            self.assignments, self.fixed, self.warnings, self.retained, loose=loose
        )
        self.result = PlacementResult(self.capacity, decided)

    def _is_loose(self, key: str) -> bool:
        return user_pins.unpinned(self.guests[key], self.host) > 0

    def _retain(self, current: Mapping[str, Placement]) -> list[GuestDemand]:
        """Reserve what still holds; the demands that are left."""
        if not current:
            return self.wanted
        rest = [wanted for wanted in self.wanted if wanted.guest.key not in current]
        placed = [(one, current[one.guest.key]) for one in self.wanted if one.guest.key in current]
        for wanted, now in sorted(placed, key=_takes_more):
            assignment = retain(self.capacity, wanted, now)
            if assignment:
                self.assignments[wanted.guest.key] = assignment
                self.retained[wanted.guest.key] = now
            else:
                rest.append(wanted)
        for key, one in list(self.assignments.items()):
            wishes = one.wanted.dedicated and not one.dedicated
            better = promoted(self.capacity, one) if wishes else None
            if better:
                self.assignments[key] = better
                del self.retained[key]
        return rest


def vcpus_per_cpu(wanted: list[GuestDemand]) -> float:
    """How many vCPUs of guests that are not ours to place count as one CPU that is needed."""
    return max((one.policy.vcpus_per_cpu for one in wanted), default=1)


def _takes_more(placed: tuple[GuestDemand, Placement]) -> tuple[bool, bool]:
    """Sorts last who may take what others have: guests with new vCPUs, and before them floating
    ones, whose node may lack CPUs that nobody knows yet to be dedicated."""
    wanted, now = placed
    grown = any(vcpu not in now.vcpus for vcpu in wanted.whole.vcpus)
    return grown, now.kind is PlacementKind.SHARED


def housekeeping(host: Host, wanted: list[GuestDemand], warnings: list[str]) -> list[int]:
    """By node index, CPUs that are never dedicated: those named, or a core a node, of the slowest
    kind."""
    named = frozenset[int]().union(*(one.policy.housekeeping or () for one in wanted))
    unknown = named - host.cpus.keys()
    if unknown:
        names = ", ".join(map(str, sorted(unknown)[:8]))
        warnings.append(f"housekeeping: these CPUs are not online here: {names}")
    automatic = not wanted or any(one.policy.housekeeping is None for one in wanted)
    preferred = {one.policy.prefer for one in wanted if one.dedicated} - {Prefer.NONE}
    masks = []
    for node in host.grid.nodes:
        mask = sum(1 << bit for bit, cpu in enumerate(node.cpus) if cpu in named)
        usual = node.everything & ~node.isolated
        if automatic and usual:
            lowest = min(node.numbers(_least_wanted(node, usual, preferred)))
            mask |= node.core_of[node.cpus.index(lowest)] & usual
        masks.append(mask)
    return masks


def _least_wanted(node: GridNode, usual: int, preferred: Set[Prefer]) -> int:
    """Of some CPUs the slowest; of those, on LLCs that no guest prefers, where all prefer alike."""
    clusters = [cluster for cluster in node.clusters if cluster.mask & usual]
    slowest = min(cluster.capacity for cluster in clusters)
    slow = [cluster for cluster in clusters if cluster.capacity == slowest]
    sizes = [cluster.cache for cluster in slow]
    if len(preferred) == 1:
        size = min(sizes) if Prefer.CACHE in preferred else max(sizes)
        slow = [cluster for cluster in slow if cluster.cache == size]
    return usual & sum(cluster.mask for cluster in slow)
