# SPDX-License-Identifier: GPL-2.0-or-later
"""The making of one plan."""

from __future__ import annotations

from collections.abc import Mapping

from tuned_virt.core.options import BadOptions
from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Host
from tuned_virt.placement import rebalance, user_pins
from tuned_virt.placement.assignment import Outcome
from tuned_virt.placement.demand import Demand, demand
from tuned_virt.placement.host_capacity import Board
from tuned_virt.placement.model import Kind, Placement
from tuned_virt.placement.node_capacity import Banks, Room, Share
from tuned_virt.placement.place import place_guest, resident
from tuned_virt.placement.placements import Decided, Result
from tuned_virt.placement.policy import Mode, Policy, policy_for
from tuned_virt.placement.retain import keep, promoted

LEFT_ALONE = Policy(policy=Mode.NONE)
"""For guests in no selection."""


class Session:
    """Guests by key; those that are ours to place as outcomes, the others as fixed placements."""

    def __init__(self, host: Host, policy: Policy | Mapping[str, Policy]) -> None:
        self.host = host
        self.policy = policy
        self.warnings = list(host.notes)
        self.guests: dict[str, Guest] = {}
        self.wanted: list[Demand] = []
        self.fixed: dict[str, Placement] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.kept: dict[str, Placement] = {}
        self.housekeeping: list[int] = []
        self.board: Board
        self.result: Result

    def begin(self, guests: list[Guest]) -> None:
        """Sort guests out, and count what is not ours to place."""
        self.sort_out(guests)
        self.housekeeping = housekeeping(self.host, self.wanted, self.warnings)
        self.board = self._board()

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

    def policy_of(self, guest: Guest) -> Policy:
        """The policy that its selection gives a guest."""
        if isinstance(self.policy, Policy):
            return self.policy
        return self.policy.get(guest.key, LEFT_ALONE)

    def _classify(self, guest: Guest) -> None:
        if guest.notes:
            self.warnings += [f"guest {guest.name}: {note}" for note in guest.notes]
        owner = user_pins.reason(guest, self.host)
        if owner:
            self.fixed[guest.key] = user_pins.placement(guest, self.host, owner)
            return
        try:
            own = policy_for(guest, self.policy_of(guest))
        except BadOptions as error:
            why = f"its metadata is not valid: {error}"
            self.fixed[guest.key] = _unplaced(guest, why, chosen=False)
            return
        if own.policy is Mode.NONE:
            self.fixed[guest.key] = _unplaced(guest, "policy=none", chosen=True)
            return
        self.wanted.append(demand(guest, own, self.host.huge_page))

    # --- the board ------------------------------------------------------------------------------

    def _board(self) -> Board:
        claimed = user_pins.claims(self.host, self.guests.values())
        self.warnings += user_pins.conflicts(self.host, self.guests.values())
        rooms = []
        for place, node in enumerate(self.host.grid.nodes):
            room = Room(
                node, self.housekeeping[place], claimed.avoided[place], claimed.taken[place]
            )
            room.load = claimed.load[place]
            rooms.append(room)
        board = Board(self.host, rooms, Banks(self.host))
        board.endless = len(rooms) == 1 and not (
            claimed.taken[0] or any(one.dedicated for one in self.wanted)
        )
        self._count_residents(board)
        return board

    def _count_residents(self, board: Board) -> None:
        """Free memory does not hold what guests have: all of it is given back, then charged again
        where each guest is planned to be, or is for good."""
        measured = any(node.available is not None for node in self.host.nodes)
        for guest in self.guests.values():
            shares = resident(guest, self.host)
            if measured:
                board.banks.charge(shares, -1)
            if guest.key in self.fixed:
                board.banks.charge(shares or self._where_owned(guest))

    def _where_owned(self, guest: Guest) -> list[Share]:
        """A guest that does not run: its memory in equal parts on the nodes its owner chose."""
        nodes = set(guest.owned.nodes or self.fixed[guest.key].nodes) & self.host.by_id.keys()
        whole = demand(guest, LEFT_ALONE, self.host.huge_page).whole
        return [
            Share(
                node,
                whole.memory / len(nodes),
                {size: pages / len(nodes) for size, pages in whole.huge.items()},
            )
            for node in sorted(nodes)
        ]

    # --- placing --------------------------------------------------------------------------------

    def place(self, current: Mapping[str, Placement]) -> None:
        """Keep, place the rest, move what is asked for, and note the result."""
        rest = self._keep(current)
        for wanted in sorted(rest, key=lambda wanted: wanted.hardness):
            self.outcomes[wanted.guest.key] = place_guest(self.board, wanted)
        rebalance.move(self.board, self.outcomes, self.kept)
        decided = Decided(self.outcomes, self.fixed, self.warnings, self.kept)
        self.result = Result(self.board, decided)

    def _keep(self, current: Mapping[str, Placement]) -> list[Demand]:
        """Settle what holds; the demands that are left."""
        if not current:
            return self.wanted
        rest = [wanted for wanted in self.wanted if wanted.guest.key not in current]
        held = [
            (wanted, current[wanted.guest.key])
            for wanted in self.wanted
            if wanted.guest.key in current
        ]
        held.sort(key=_takes_more)
        rest += [wanted for wanted, now in held if not self._kept(wanted, now)]
        self._promote([key for key, one in self.outcomes.items() if not one.dedicated])
        return rest

    def _promote(self, floating: list[str]) -> None:
        for key in floating:
            outcome = self.outcomes[key]
            better = promoted(self.board, outcome) if outcome.wanted.dedicated else None
            if better:
                self.outcomes[key] = better
                del self.kept[key]

    def _kept(self, wanted: Demand, now: Placement) -> bool:
        outcome = keep(self.board, wanted, now)
        if outcome:
            self.outcomes[wanted.guest.key] = outcome
            self.kept[wanted.guest.key] = now
        return outcome is not None


def _takes_more(held: tuple[Demand, Placement]) -> tuple[bool, bool]:
    """Sorts last who may take what others have: guests with new vCPUs, and before them floating
    ones, whose node may lack CPUs that nobody knows yet to be dedicated."""
    wanted, now = held
    grown = any(vcpu not in now.vcpus for vcpu in wanted.whole.vcpus)
    return grown, now.kind is Kind.SHARED


def _unplaced(guest: Guest, why: str, chosen: bool) -> Placement:
    return Placement(guest.name, guest.uuid, Kind.UNPLACED, (), {}, "", {}, None, why, chosen)


def housekeeping(host: Host, wanted: list[Demand], warnings: list[str]) -> list[int]:
    """By place, CPUs that are never dedicated: those named, and a core a node where none are."""
    named = frozenset[int]().union(*(one.policy.housekeeping or () for one in wanted))
    unknown = named - host.cpus.keys()
    if unknown:
        names = ", ".join(map(str, sorted(unknown)[:8]))
        warnings.append(f"housekeeping: these CPUs are not online here: {names}")
    automatic = not wanted or any(one.policy.housekeeping is None for one in wanted)
    masks = []
    for node in host.grid.nodes:
        mask = sum(1 << bit for bit, cpu in enumerate(node.cpus) if cpu in named)
        usual = node.everything & ~node.quiet
        if automatic and usual:
            lowest = min(node.numbers(usual))
            mask |= node.core_of[node.cpus.index(lowest)] & usual
        masks.append(mask)
    return masks
