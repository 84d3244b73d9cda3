"""The planner: keeps what holds, then places the rest, the hardest guests first.

It is a greedy search with exact parts: for each guest all nodes are compared, and for one that
fits in none, sets of nodes by branch and bound. What a guest is given only makes less room for the
next, so that a plan's own result, planned again, stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tuned_virt import cpuset
from tuned_virt.guest import Guest
from tuned_virt.options import BadOptions
from tuned_virt.placement import owners, rebalance, several, single
from tuned_virt.placement.board import Board
from tuned_virt.placement.demand import Demand, demand
from tuned_virt.placement.keep import keep
from tuned_virt.placement.model import Kind, Placement, Plan
from tuned_virt.placement.outcome import Choice, Outcome, seated
from tuned_virt.placement.policy import Mode, Policy, policy_for
from tuned_virt.placement.result import Result
from tuned_virt.placement.rooms import Banks, Room, Share
from tuned_virt.topology import Host

LEFT_ALONE = Policy(policy=Mode.NONE)
"""For guests in no selection."""


def plan(
    host: Host,
    guests: Iterable[Guest],
    policy: Policy | Mapping[str, Policy],
    current: Mapping[str, Placement],
) -> Plan:
    """Place the guests on the host.

    policy   for all, or by guest's UUID where selections differ; a guest in none is left alone
    current  our own placements that are in force, by UUID: those still valid stay as they are
    """
    planner = _Planner(host, guests, policy)
    planner.place(current)
    return planner.result.plan()


class _Planner:
    def __init__(
        self, host: Host, guests: Iterable[Guest], policy: Policy | Mapping[str, Policy]
    ) -> None:
        self.host = host
        self.warnings = list(host.notes)
        self.wanted: list[Demand] = []
        self.fixed: dict[str, Placement] = {}
        self.guests = self._known(guests)
        self.outcomes: dict[str, Outcome] = {}
        for guest in self.guests.values():
            self._classify(guest, policy)
        self.housekeeping = _housekeeping(host, self.wanted, self.warnings)
        self.board = self._board()

    def _known(self, guests: Iterable[Guest]) -> dict[str, Guest]:
        """The guests by key, in an order that is the same whatever theirs is."""
        known: dict[str, Guest] = {}
        for guest in sorted(guests, key=lambda guest: (guest.name, guest.key, guest.memory)):
            if guest.key in known:
                self.warnings.append(f"guest {guest.name} is given twice: {guest.key}")
            else:
                known[guest.key] = guest
        return known

    def _classify(self, guest: Guest, policy: Policy | Mapping[str, Policy]) -> None:
        self.warnings += [f"guest {guest.name}: {note}" for note in guest.notes]
        given = policy if isinstance(policy, Policy) else policy.get(guest.key, LEFT_ALONE)
        owner = owners.reason(guest, self.host)
        if owner:
            self.fixed[guest.key] = owners.placement(guest, self.host, owner)
            return
        try:
            own = policy_for(guest, given)
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
        claimed = owners.claims(self.host, self.guests.values())
        self.warnings += owners.conflicts(self.host, self.guests.values())
        rooms = []
        for place, node in enumerate(self.host.grid.nodes):
            room = Room(
                node, self.housekeeping[place], claimed.avoided[place], claimed.taken[place]
            )
            room.load = claimed.load[place]
            rooms.append(room)
        board = Board(self.host, rooms, Banks(self.host))
        self._count_residents(board)
        return board

    def _count_residents(self, board: Board) -> None:
        """Free memory does not hold what guests have: all of it is given back, then charged again
        where each guest is planned to be, or is for good."""
        measured = any(node.available is not None for node in self.host.nodes)
        for guest in self.guests.values():
            shares = _resident(guest, self.host)
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
        rebalance.move(self.board, self.outcomes)
        self.result = Result(self.board, self.outcomes, self.fixed, self.warnings)

    def _keep(self, current: Mapping[str, Placement]) -> list[Demand]:
        """Settle what holds, dedicated guests first; the demands that are left."""
        if not current:
            return self.wanted
        floating: list[tuple[Demand, Placement]] = []
        rest = []
        for wanted in self.wanted:
            now = current.get(wanted.guest.key)
            if now is None:
                rest.append(wanted)
            elif now.kind is Kind.SHARED:
                floating.append((wanted, now))
            elif not self._kept(wanted, now):
                rest.append(wanted)
        rest += [wanted for wanted, now in floating if not self._kept(wanted, now)]
        return rest

    def _kept(self, wanted: Demand, now: Placement) -> bool:
        outcome = keep(self.board, wanted, now)
        if outcome:
            self.outcomes[wanted.guest.key] = outcome
        return outcome is not None


def place_guest(board: Board, wanted: Demand) -> Outcome:
    """A guest's outcome, settled: dedicated if it asks for that, floating, or left alone."""
    reasons: list[str] = []
    for dedicated in (True, False) if wanted.dedicated else (False,):
        outcome = _attempt(board, wanted, dedicated)
        if outcome:
            if reasons:
                outcome.why = f"not dedicated, as {reasons[0]}; {outcome.why}"
            return outcome
        reasons.append(single.no_room(board, wanted, dedicated))
    if not wanted.cells and len(board.rooms) > 1:
        reasons[-1] += ", nor have all together"
    outcome = Outcome(wanted, Kind.UNPLACED, "left alone: " + "; ".join(reasons))
    outcome.shares = _resident(wanted.guest, board.host)
    board.banks.charge(outcome.shares)
    return outcome


def _attempt(board: Board, wanted: Demand, dedicated: bool) -> Outcome | None:
    choice = single.choose(board, wanted, dedicated)
    if choice:
        return seated(board, wanted, choice, dedicated)
    lacking = single.no_room(board, wanted, dedicated)
    spread = several.spread(board, wanted, dedicated)
    if spread:
        why = f"{_names(board, spread)}: {lacking}, these are the fewest and nearest that have"
        return seated(board, wanted, Choice(spread, why), dedicated)
    wide = several.widen(board, wanted, dedicated)
    if wide:
        seats, banks = wide
        why = f"{_names(board, seats)}: {lacking}, its memory spans nodes {cpuset.text(banks)}"
        return seated(board, wanted, Choice(seats, why, banks), dedicated)
    return None


def _names(board: Board, seats: Iterable[int]) -> str:
    numbers = [str(board.grid.nodes[place].id) for place in seats]
    if len(numbers) == 1:
        return f"node {numbers[0]}"
    return f"nodes {', '.join(numbers[:-1])} and {numbers[-1]}"


def _resident(guest: Guest, host: Host) -> list[Share]:
    """Where its memory is now; huge pages by the size that it asks for."""
    whole = demand(guest, LEFT_ALONE, host.huge_page).whole if guest.huge_pages else None
    size = next(iter(whole.huge), 0) if whole else 0
    return [
        Share(node, 0 if size else kib, {size: kib / size} if size else {})
        for node, kib in sorted(guest.resident.items())
        if node in host.by_id and kib > 0
    ]


def _unplaced(guest: Guest, why: str, chosen: bool) -> Placement:
    return Placement(guest.name, guest.uuid, Kind.UNPLACED, (), {}, "", {}, None, why, chosen)


def _housekeeping(host: Host, wanted: list[Demand], warnings: list[str]) -> list[int]:
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
