# SPDX-License-Identifier: GPL-2.0-or-later
"""A host while a plan is made: what is free on it, and what seats on it would cost a guest."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Host
from tuned_virt.placement.demand import Demand, Part
from tuned_virt.placement.node_capacity import Banks, Room, Share
from tuned_virt.placement.policy import Policy

ENDLESS = 1 << 30

Seats = Mapping[int, tuple[int, ...]]
"""Place of a node in the grid → vCPUs there."""


class Board:
    """The rooms and memory of a host.

    endless   it is one node of which nothing is anybody's own: to float there confines nobody, so
              all guests may, whatever overcommit says
    hopeless  shapes of guests, with whether dedicated, that were tried and found no room: while
              rooms are only taken, others like them need not be tried
    """

    def __init__(self, host: Host, rooms: list[Room], banks: Banks) -> None:
        self.host = host
        self.grid = host.grid
        self.rooms = rooms
        self.banks = banks
        self.endless = False
        self.hopeless: set[tuple[Hashable, bool]] = set()

    def copy(self) -> Board:
        """Another to try something on."""
        other = Board(self.host, [room.copy() for room in self.rooms], self.banks.copy())
        other.endless = self.endless
        other.hopeless = set(self.hopeless)
        return other

    def capacity(self, place: int, policy: Policy, dedicated: bool) -> int:
        """vCPUs that a node has room for."""
        room = self.rooms[place]
        if dedicated:
            return room.dedicable(policy.smt)
        if self.endless:
            return ENDLESS
        return int(room.floatable(policy.overcommit))

    def allowed(self, part: Part) -> list[int]:
        """Places that its owner's numatune leaves it; of memory nodes, those with CPUs."""
        if part.allowed is None:
            return list(range(len(self.rooms)))
        return [place for place, node in enumerate(self.grid.nodes) if node.bank in part.allowed]

    def fits_memory(self, part: Part, place: int) -> bool:
        """Whether a part's memory is there on the node."""
        return self.banks.fits(part.memory, part.huge, self.grid.nodes[place].bank)

    # --- what memory seats use ------------------------------------------------------------------

    def shares(self, wanted: Demand, seats: Seats, banks: Sequence[int] = ()) -> list[Share]:
        """Memory by bank: with the vCPUs; over `banks`, by their size, where some are given."""
        if banks:
            total = sum(self.host.by_id[bank].memory for bank in banks)
            return [
                _share(wanted.whole, bank, self.host.by_id[bank].memory / total) for bank in banks
            ]
        if len(seats) == 1:
            [place] = seats
            return [_share(wanted.whole, self.grid.nodes[place].bank, 1)]
        parts = wanted.cells or (wanted.whole,)
        first = next(iter(seats))
        return [share for part in parts for share in self._part_shares(part, seats, first)]

    def _part_shares(self, part: Part, seats: Seats, first: int) -> Iterable[Share]:
        """A part without vCPUs that are online goes with the guest's first."""
        of_place = {place: len(set(part.vcpus) & set(vcpus)) for place, vcpus in seats.items()}
        total = sum(of_place.values())
        if not total:
            of_place, total = {first: 1}, 1
        for place, vcpus in of_place.items():
            if vcpus:
                yield _share(part, self.grid.nodes[place].bank, vcpus / total)

    # --- what places cost a guest ---------------------------------------------------------------

    def device_distance(self, guest: Guest, place: int) -> int:
        """Sum of the distances of its PCI devices beyond local ones; unknown ones count nothing."""
        if not guest.devices:
            return 0
        node = self.grid.nodes[place].id
        homes = (self.host.devices.get(device, -1) for device in guest.devices)
        return sum(
            self.host.distance(node, home) - self.host.distance(node, node)
            for home in homes
            if home in self.host.by_id
        )

    def to_move(self, guest: Guest, place: int) -> int:
        """KiB of its memory that is on other nodes now."""
        if not guest.resident:
            return 0
        bank = self.grid.nodes[place].bank
        return sum(kib for node, kib in guest.resident.items() if node != bank)


def _share(part: Part, bank: int, fraction: float) -> Share:
    if fraction == 1:
        return Share(bank, part.memory, part.huge)
    huge = {size: pages * fraction for size, pages in part.huge.items()}
    return Share(bank, part.memory * fraction, huge)
