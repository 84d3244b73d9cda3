# SPDX-License-Identifier: GPL-2.0-or-later
"""Several nodes for a guest that fits in none: fewest nodes, then least distance.

vNUMA cells stay whole where they can: they are matched to nodes by branch and bound. Equal cells
are never permuted, and a bounded number of steps is tried (Nova's search over permutations took
minutes for 8 cells on 16 nodes, LP#1978372). A guest without cells, or with a cell that no node
takes, is cut by vCPUs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations

from tuned_virt.placement.demand import Demand, Part
from tuned_virt.placement.host_capacity import Board, Seats
from tuned_virt.placement.single_node import places

MOST_SUBSETS = 3000
"""Sets of nodes that are compared one by one; beyond, sets grown from each node by distance."""

MOST_STEPS = 800
"""Steps of the search for cells, all seeds together."""

Table = tuple[tuple[int, ...], ...]


def spread(board: Board, wanted: Demand, dedicated: bool) -> Seats | None:
    """vCPUs by node for a guest that no node takes whole; None where the host has no room."""
    if wanted.cells:
        found = _match_cells(board, wanted, dedicated)
        if found:
            return found
    return _cut(board, wanted, dedicated)


def span(table: Table, chosen: Iterable[int]) -> int:
    """Sum of the distances between all pairs of nodes."""
    return sum(table[one][other] for one, other in combinations(sorted(chosen), 2))


# --- by vCPUs -------------------------------------------------------------------------------------


def _cut(board: Board, wanted: Demand, dedicated: bool) -> Seats | None:
    vcpus = len(wanted.whole.vcpus)
    room = {
        place: min(vcpus, _vcpus_with_memory(board, wanted, place, dedicated))
        for place in places(board, wanted)
    }
    room = {place: most for place, most in room.items() if most > 0}
    chosen = _fewest(room, vcpus, board, wanted)
    if chosen is None:
        return None
    numbers = _amounts({place: room[place] for place in chosen}, vcpus, wanted.guest.threads)
    seats = {}
    rest = _in_cells(wanted)
    for place, number in numbers.items():
        seats[place], rest = rest[:number], rest[number:]
    shares = board.shares(wanted, seats)
    by_bank: dict[int, float] = {}
    for share in shares:
        by_bank[share.bank] = by_bank.get(share.bank, 0) + share.memory
    if all(board.banks.fits(by_bank[s.bank], s.huge, s.bank) for s in shares):
        return seats
    return None


def _vcpus_with_memory(board: Board, wanted: Demand, place: int, dedicated: bool) -> int:
    """vCPUs that a node takes together with their part of the memory."""
    whole, bank = wanted.whole, board.grid.nodes[place].bank
    vcpus = len(whole.vcpus)
    most = board.capacity(place, wanted.policy, dedicated)
    if whole.memory:
        room = board.banks.memory[bank]
        most = most if room == math.inf else min(most, int(room * vcpus / whole.memory))
    for size, pages in whole.huge.items():
        most = min(most, int(board.banks.huge.get((bank, size), 0) * vcpus / pages))
    return most


def _in_cells(wanted: Demand) -> tuple[int, ...]:
    """Its vCPUs, cell by cell."""
    ordered = [vcpu for cell in wanted.cells for vcpu in cell.vcpus]
    return tuple(ordered) or wanted.whole.vcpus


def _fewest(
    room: Mapping[int, int], vcpus: int, board: Board, wanted: Demand
) -> tuple[int, ...] | None:
    by_size = sorted(room, key=lambda place: (-room[place], place))
    total, least = 0, 0
    while total < vcpus:
        if least == len(by_size):
            return None
        total += room[by_size[least]]
        least += 1
    table = board.grid.distances
    sets = _sets(by_size, least, table)
    enough = [chosen for chosen in sets if sum(room[place] for place in chosen) >= vcpus]

    def cost(chosen: tuple[int, ...]) -> tuple[float, ...]:
        devices = sum(board.device_distance(wanted.guest, place) for place in chosen)
        to_move = sum(board.to_move(wanted.guest, place) for place in chosen)
        return (span(table, chosen), devices, to_move, *chosen)

    return min(enough, key=cost)


def _sets(by_size: list[int], number: int, table: Table) -> Iterator[tuple[int, ...]]:
    """Sets of so many nodes; always among them the one with the most room."""
    if math.comb(len(by_size), number) <= MOST_SUBSETS:
        yield from combinations(sorted(by_size), number)
        return
    yield tuple(sorted(by_size[:number]))
    for seed in by_size:
        grown = sorted(by_size, key=lambda place: (table[seed][place], by_size.index(place)))
        yield tuple(sorted(grown[:number]))


def _amounts(room: Mapping[int, int], vcpus: int, threads: int) -> dict[int, int]:
    """How many vCPUs each node takes, by place: the emptiest most, guest cores kept whole."""
    taken = {}
    order = sorted(room, key=lambda place: (-room[place], place))
    for at, place in enumerate(order):
        later = sum(room[other] for other in order[at + 1 :])
        most = min(room[place], vcpus)
        even = most - most % threads
        taken[place] = even if even and vcpus - even <= later else most
        vcpus -= taken[place]
    return {place: taken[place] for place in sorted(taken) if taken[place]}


# --- by cells -------------------------------------------------------------------------------------


def _match_cells(board: Board, wanted: Demand, dedicated: bool) -> Seats | None:
    search = _CellSearch(board, wanted, dedicated)
    best = search.run()
    if best is None:
        return None
    seats: dict[int, tuple[int, ...]] = {}
    for part, place in sorted(zip(search.parts, best), key=lambda pair: pair[1]):
        seats[place] = tuple(sorted((*seats.get(place, ()), *part.vcpus)))
    return {place: vcpus for place, vcpus in seats.items() if vcpus} or None


class _CellSearch:
    """Cells → places by depth-first search, the largest cell first, from each node as a seed.

    Within a seed, places are in order of distance from it, and a cell equal to the one before is
    never put before it in that order. Cost: nodes used, distances between them, distance of
    devices, KiB to move.
    """

    def __init__(self, board: Board, wanted: Demand, dedicated: bool) -> None:
        self.board = board
        self.table = board.grid.distances
        self.parts = sorted(wanted.cells, key=lambda c: (-len(c.vcpus), -c.memory, c.cell))
        self.allowed = [
            set(board.allowed(part)) & set(places(board, wanted)) for part in self.parts
        ]
        self.room = [
            board.capacity(place, wanted.policy, dedicated) for place in range(len(board.rooms))
        ]
        self.largest = max(self.room, default=0)
        self.needed = [sum(len(p.vcpus) for p in self.parts[at:]) for at in range(len(self.parts))]
        self.extra = [
            (board.device_distance(wanted.guest, place), board.to_move(wanted.guest, place))
            for place in range(len(board.rooms))
        ]
        self.tied = any(map(any, self.extra))
        self.banks = board.banks.copy()
        self.best: tuple[float, ...] | None = None
        self.found: list[int] | None = None

    def run(self) -> list[int] | None:
        """A place for each part, None where none was found."""
        seeds = [place for place, room in enumerate(self.room) if room > 0]
        for seed in seeds:
            self.order = sorted(seeds, key=lambda place: (self.table[seed][place], place))
            self.steps = MOST_STEPS // len(seeds)
            self._descend([], 0)
        return self.found

    def _descend(self, chosen: list[int], distance: int) -> None:
        at = len(chosen)
        if at == len(self.parts):
            self._keep(chosen, distance)
            return
        self.steps -= 1
        if self.steps < 0 or self._hopeless(chosen, distance):
            return
        part = self.parts[at]
        start = 0
        if at and _equal(part, self.parts[at - 1]):
            start = self.order.index(chosen[-1])
        used = set(chosen)
        for place in self.order[start:]:
            bank = self.board.grid.nodes[place].bank
            if self._fits(at, place, bank):
                further = 0 if place in used else sum(self.table[place][one] for one in used)
                self._use(part, place, bank, 1)
                self._descend([*chosen, place], distance + further)
                self._use(part, place, bank, -1)

    def _fits(self, at: int, place: int, bank: int) -> bool:
        part = self.parts[at]
        return (
            self.room[place] >= len(part.vcpus)
            and place in self.allowed[at]
            and self.banks.fits(part.memory, part.huge, bank)
        )

    def _use(self, part: Part, place: int, bank: int, sign: int) -> None:
        self.room[place] -= sign * len(part.vcpus)
        self.banks.memory[bank] -= sign * part.memory
        for size, pages in part.huge.items():
            self.banks.huge[bank, size] -= sign * pages

    def _hopeless(self, chosen: list[int], distance: int) -> bool:
        """Whether even the roomiest further nodes would make it no better than the best."""
        if self.best is None:
            return False
        used = set(chosen)
        over = self.needed[len(chosen)] - sum(self.room[place] for place in used)
        nodes = len(used) + max(0, math.ceil(over / self.largest))
        bound, best = (nodes, distance), self.best[:2]
        return bound > best or (bound == best and not self.tied)

    def _keep(self, chosen: list[int], distance: int) -> None:
        used = sorted(set(chosen))
        devices = sum(self.extra[place][0] for place in used)
        to_move = sum(self.extra[place][1] for place in used)
        cost = (len(used), distance, devices, to_move, *chosen)
        if self.best is None or cost < self.best:
            self.best, self.found = cost, list(chosen)


def _equal(one: Part, other: Part) -> bool:
    return (
        len(one.vcpus) == len(other.vcpus)
        and one.memory == other.memory
        and one.huge == other.huge
        and one.allowed == other.allowed
    )


# --- by memory ------------------------------------------------------------------------------------


def widen(board: Board, wanted: Demand, dedicated: bool) -> tuple[Seats, tuple[int, ...]] | None:
    """One node for the vCPUs of a guest whose memory fits in none, and the nodes for its memory.

    Those are its own and the nearest further ones, filled by their size; never for huge pages.
    """
    vcpus = wanted.whole.vcpus
    if wanted.whole.huge:
        return None
    found = []
    for place in places(board, wanted):
        banks = _wide(board, wanted, place)
        if banks and board.capacity(place, wanted.policy, dedicated) >= len(vcpus):
            node = board.grid.nodes[place].id
            far = sum(board.host.distance(node, bank) for bank in banks)
            found.append((len(banks), far, place, banks))
    if not found:
        return None
    _, _, place, banks = min(found)
    return {place: vcpus}, banks


def _wide(board: Board, wanted: Demand, place: int) -> tuple[int, ...]:
    node = board.grid.nodes[place]
    with_cpus = {other.bank for other in board.grid.nodes}
    allowed = wanted.whole.allowed or with_cpus
    order = sorted(
        with_cpus & allowed - {node.bank}, key=lambda b: (board.host.distance(node.id, b), b)
    )
    for number in range(1, len(order) + 1):
        banks = tuple(sorted((node.bank, *order[:number])))
        shares = board.shares(wanted, {place: ()}, banks)
        if all(board.banks.fits(share.memory, {}, share.bank) for share in shares):
            return banks
    return ()
