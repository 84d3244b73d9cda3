# SPDX-License-Identifier: GPL-2.0-or-later
"""Moves of guests that are placed already, only where the policy asks for some."""

from __future__ import annotations

from collections.abc import MutableMapping

from tuned_virt.placement.assignment import Outcome, settle, unsettle
from tuned_virt.placement.host_capacity import Board
from tuned_virt.placement.model import Placement
from tuned_virt.placement.place import place_guest

GOOD = (False, 1, 0)
"""The cost of a place that no other can better: as wished, on one node, next to its devices."""


def move(
    board: Board, outcomes: MutableMapping[str, Outcome], kept: MutableMapping[str, Placement]
) -> None:
    """Move at most as many kept guests as `rebalance` says, each time the one that gains most.

    Only guests that are split, far from their devices, or float though they should be dedicated
    can gain; memory that cannot move stays.
    """
    moves = max((one.wanted.policy.rebalance for one in outcomes.values()), default=0)
    for _ in range(moves):
        gains = [
            (_after(board, outcomes[key]), key)
            for key in sorted(kept)
            if _may_gain(board, outcomes[key])
        ]
        better = [(cost, key) for cost, key in gains if cost < _cost(board, outcomes[key])]
        if not better:
            return
        key = min(better)[1]
        unsettle(board, outcomes[key])
        outcomes[key] = place_guest(board, outcomes[key].wanted)
        outcomes[key].why = f"moved to a better place: {outcomes[key].why}"
        del kept[key]


def _may_gain(board: Board, outcome: Outcome) -> bool:
    guest = outcome.wanted.guest
    return (
        outcome.wanted.policy.rebalance > 0
        and (guest.movable or not guest.resident)
        and _cost(board, outcome) > GOOD
    )


def _cost(board: Board, outcome: Outcome) -> tuple[bool, int, int]:
    """Smaller is better: not as wished, nodes spanned, distance of devices."""
    guest = outcome.wanted.guest
    far = sum(board.device_distance(guest, place) for place in outcome.seats)
    as_wished = bool(outcome.seats) and outcome.dedicated == outcome.wanted.dedicated
    return not as_wished, len(outcome.seats), far


def _after(board: Board, outcome: Outcome) -> tuple[bool, int, int]:
    """The cost of the place that it would be given now; the board is left as it was."""
    unsettle(board, outcome)
    trial = place_guest(board, outcome.wanted)
    cost = _cost(board, trial)
    unsettle(board, trial)
    settle(board, outcome)
    return cost
