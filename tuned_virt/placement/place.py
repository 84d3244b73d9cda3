# SPDX-License-Identifier: GPL-2.0-or-later
"""Places one guest: dedicated if it asks for that, floating, or left alone."""

from __future__ import annotations

from collections.abc import Iterable

from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Host
from tuned_virt.placement import multi_node, single_node
from tuned_virt.placement.assignment import Choice, Outcome, seated
from tuned_virt.placement.demand import Demand, demand
from tuned_virt.placement.host_capacity import Board
from tuned_virt.placement.model import Kind
from tuned_virt.placement.node_capacity import Share
from tuned_virt.placement.policy import Policy

ANY = Policy()


def place_guest(board: Board, wanted: Demand) -> Outcome:
    """A guest's outcome, settled: dedicated if it asks for that, floating, or left alone."""
    for dedicated in _ways(wanted):
        attempt = (wanted.shape, dedicated)
        outcome = None if attempt in board.hopeless else _attempt(board, wanted, dedicated)
        if outcome:
            if wanted.dedicated and not dedicated:
                lacking = single_node.no_room(board, wanted, True)
                outcome.why = f"not dedicated, as {lacking}; {outcome.why}"
            return outcome
        board.hopeless.add(attempt)
    outcome = Outcome(wanted, Kind.UNPLACED, "", shares=resident(wanted.guest, board.host))
    board.banks.charge(outcome.shares)
    return outcome


def _ways(wanted: Demand) -> tuple[bool, ...]:
    return (True, False) if wanted.dedicated else (False,)


def left_alone(board: Board, wanted: Demand) -> str:
    """Why a guest is left alone, once all others have their places."""
    reasons = [single_node.no_room(board, wanted, dedicated) for dedicated in _ways(wanted)]
    together = ", nor have several together" if len(board.rooms) > 1 else ""
    return f"left alone: {'; '.join(reasons)}{together}"


def _attempt(board: Board, wanted: Demand, dedicated: bool) -> Outcome | None:
    choice = single_node.choose(board, wanted, dedicated)
    if choice:
        return seated(board, wanted, choice, dedicated)
    lacking = single_node.no_room(board, wanted, dedicated)
    spread = multi_node.spread(board, wanted, dedicated)
    if spread:
        why = f"{_names(board, spread)}: {lacking}, these are the fewest and nearest that have"
        return seated(board, wanted, Choice(spread, why), dedicated)
    wide = multi_node.widen(board, wanted, dedicated)
    if wide:
        seats, banks = wide
        why = f"{_names(board, seats)}: {lacking}, its memory spans nodes {cpuset.text(banks)}"
        held = banks if wanted.memory_is_ours else ()
        return seated(board, wanted, Choice(seats, why, held), dedicated)
    return None


def _names(board: Board, seats: Iterable[int]) -> str:
    numbers = [str(board.grid.nodes[place].id) for place in seats]
    if len(numbers) == 1:
        return f"node {numbers[0]}"
    return f"nodes {', '.join(numbers[:-1])} and {numbers[-1]}"


def resident(guest: Guest, host: Host) -> list[Share]:
    """Where its memory is now; huge pages by the size that it asks for."""
    whole = demand(guest, ANY, host.huge_page).whole if guest.huge_pages else None
    size = next(iter(whole.huge), 0) if whole else 0
    return [
        Share(node, 0 if size else kib, {size: kib / size} if size else {})
        for node, kib in sorted(guest.resident.items())
        if node in host.by_id and kib > 0
    ]
