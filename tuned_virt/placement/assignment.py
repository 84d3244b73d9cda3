# SPDX-License-Identifier: GPL-2.0-or-later
"""What was decided for one guest, and what that uses of the board."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tuned_virt.placement.cores import allot
from tuned_virt.placement.demand import Demand
from tuned_virt.placement.host_capacity import Board, Seats
from tuned_virt.placement.model import Kind
from tuned_virt.placement.node_capacity import Share


@dataclass
class Outcome:
    """A guest's seats.

    cpus    vCPU → CPU number, for a dedicated guest
    masks   place → CPUs that it takes from all others, idle ones of its cores included
    banks   nodes of its memory, where those are not simply the seats'

    """

    wanted: Demand
    kind: Kind
    why: str
    seats: Seats = field(default_factory=dict)
    cpus: Mapping[int, int] = field(default_factory=dict)
    masks: Mapping[int, int] = field(default_factory=dict)
    banks: tuple[int, ...] = ()

    shares: list[Share] = field(default_factory=list)

    @property
    def dedicated(self) -> bool:
        """Whether its vCPUs have CPUs of their own."""
        return self.kind is Kind.DEDICATED


def settle(board: Board, outcome: Outcome) -> Outcome:
    """Take from the board what an outcome uses."""
    if not outcome.shares:
        outcome.shares = board.shares(outcome.wanted, outcome.seats, outcome.banks)
    board.banks.charge(outcome.shares)
    for place, mask in outcome.masks.items():
        board.rooms[place].take(mask)
    if not outcome.dedicated:
        for place, vcpus in outcome.seats.items():
            board.rooms[place].load += len(vcpus) / outcome.wanted.policy.overcommit
    return outcome


def unsettle(board: Board, outcome: Outcome) -> None:
    """Give it back."""
    board.hopeless.clear()
    board.banks.charge(outcome.shares, -1)
    for place, mask in outcome.masks.items():
        board.rooms[place].give_back(mask)
    if not outcome.dedicated:
        for place, vcpus in outcome.seats.items():
            board.rooms[place].load -= len(vcpus) / outcome.wanted.policy.overcommit


@dataclass(frozen=True)
class Choice:
    """Seats that the board has room for, why those, and the memory's nodes if they are others."""

    seats: Seats
    why: str
    banks: tuple[int, ...] = ()


def seated(board: Board, wanted: Demand, choice: Choice, dedicated: bool) -> Outcome:
    """The outcome of a choice, settled; CPUs are chosen where they are dedicated."""
    seats, why, banks = choice.seats, choice.why, choice.banks
    if not dedicated:
        return settle(board, Outcome(wanted, Kind.SHARED, why, seats, banks=banks))
    cpus: dict[int, int] = {}
    masks = {}
    for place, vcpus in seats.items():
        room = board.rooms[place]
        bits, idle = allot(room, len(vcpus), wanted.guest.threads, wanted.policy.smt)
        masks[place] = idle | sum(1 << bit for bit in bits)
        cpus.update({vcpu: room.node.cpus[bit] for vcpu, bit in zip(vcpus, bits)})
    return settle(board, Outcome(wanted, Kind.DEDICATED, why, seats, cpus, masks, banks))
