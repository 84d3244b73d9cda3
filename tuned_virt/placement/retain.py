# SPDX-License-Identifier: GPL-2.0-or-later
"""Placements of ours that are in force: kept where they still hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from tuned_virt.kernel import cpuset
from tuned_virt.placement.assignment import Choice, Outcome, seated, settle, unsettle
from tuned_virt.placement.demand import Demand
from tuned_virt.placement.host_capacity import Board
from tuned_virt.placement.model import Kind, Placement
from tuned_virt.placement.node_capacity import count
from tuned_virt.placement.policy import Smt
from tuned_virt.placement.single_node import places


def keep(board: Board, wanted: Demand, current: Placement) -> Outcome | None:
    """The outcome that keeps a placement, settled; None where it no longer holds.

    vCPUs that have come since get seats beside the others.
    """
    if current.kind is Kind.DEDICATED and wanted.dedicated:
        return _keep_dedicated(board, wanted, current)
    if current.kind is Kind.SHARED:
        return _keep_shared(board, wanted, current)
    return None


def promoted(board: Board, floating: Outcome) -> Outcome | None:
    """CPUs for a guest that floats only because its node had none to dedicate; None if it still
    has none, and nothing has changed then. Call it when all others are settled."""
    wanted, seats = floating.wanted, floating.seats
    if len(seats) > 1:
        return None
    [place] = seats
    unsettle(board, floating)
    if board.capacity(place, wanted.policy, True) < len(wanted.whole.vcpus):
        settle(board, floating)
        return None
    why = f"node {board.grid.nodes[place].id}: it has CPUs to dedicate now"
    return seated(board, wanted, Choice(seats, why, floating.banks), True)


def _keep_shared(board: Board, wanted: Demand, current: Placement) -> Outcome | None:
    seats = _places(board, wanted, current.vcpus)
    if seats is None or not set(seats) <= set(places(board, wanted)):
        return None
    if any(
        board.capacity(place, wanted.policy, False) < len(vcpus) for place, vcpus in seats.items()
    ):
        return None
    return settle(
        board,
        Outcome(
            wanted,
            Kind.SHARED,
            current.why,
            seats,
            banks=_banks(board, wanted, current, seats),
        ),
    )


def _places(
    board: Board, wanted: Demand, vcpus: Mapping[int, str]
) -> dict[int, tuple[int, ...]] | None:
    """vCPUs by place, from the first CPU of each one's set; None where that CPU is gone."""
    of_text: dict[str, int | None] = {}
    seats: dict[int, list[int]] = {}
    new = []
    for vcpu in wanted.whole.vcpus:
        text = vcpus.get(vcpu)
        if text is None:
            new.append(vcpu)
            continue
        if text not in of_text:
            of_text[text] = _place(board, text)
        place = of_text[text]
        if place is None:
            return None
        seats.setdefault(place, []).append(vcpu)
    if new and seats:
        fullest = max(seats, key=lambda place: (len(seats[place]), -place))
        seats[fullest] = sorted((*seats[fullest], *new))
    return {place: tuple(some) for place, some in sorted(seats.items())} or None


def _place(board: Board, text: str) -> int | None:
    """The place of a set's first CPU that is online."""
    for first in re.findall(r"\d{1,6}", text):
        if int(first) in board.grid.where:
            return board.grid.where[int(first)][0]
    return None


def _banks(
    board: Board, wanted: Demand, current: Placement, seats: Mapping[int, tuple[int, ...]]
) -> tuple[int, ...]:
    """Nodes of its memory where they are more than its seats'."""
    if current.memory is None:
        return ()
    of_seats = {board.grid.nodes[place].bank for place in seats}
    try:
        known = cpuset.parse(current.memory.nodeset) & board.host.by_id.keys()
    except ValueError:
        return ()
    return tuple(sorted(known)) if known > of_seats else ()


def _keep_dedicated(board: Board, wanted: Demand, current: Placement) -> Outcome | None:
    cpus = {}
    for vcpu in wanted.whole.vcpus:
        text = current.vcpus.get(vcpu)
        if text is not None:
            if not text.isdecimal() or int(text) not in board.grid.where:
                return None
            cpus[vcpu] = int(text)
    masks = _masks(board, wanted, cpus)
    seats: dict[int, tuple[int, ...]] = {}
    for vcpu, cpu in sorted(cpus.items()):
        place = board.grid.where[cpu][0]
        seats[place] = (*seats.get(place, ()), vcpu)
    if masks is None or not seats or not set(seats) <= set(places(board, wanted)):
        return None
    new = [vcpu for vcpu in wanted.whole.vcpus if vcpu not in cpus]
    outcome = Outcome(
        wanted,
        Kind.DEDICATED,
        current.why,
        dict(sorted(seats.items())),
        cpus,
        masks,
        _banks(board, wanted, current, seats),
    )
    return _extended(board, outcome, new) if new else settle(board, outcome)


def _masks(board: Board, wanted: Demand, cpus: Mapping[int, int]) -> dict[int, int] | None:
    """CPUs taken by place, with those that smt= keeps idle; None where they cannot be had."""
    masks: dict[int, int] = {}
    for cpu in cpus.values():
        place, bit = board.grid.where[cpu]
        if masks.get(place, 0) >> bit & 1:
            return None
        masks[place] = masks.get(place, 0) | 1 << bit
    for place, mask in masks.items():
        room = board.rooms[place]
        cores = _cores(room.node.core_of, mask)
        if wanted.policy.smt is Smt.ISOLATE and any(count(core & mask) > 1 for core in cores):
            return None
        if wanted.policy.smt is Smt.REQUIRE and any(count(core) == 1 for core in cores):
            return None
        if wanted.policy.smt is not Smt.PREFER:
            mask = masks[place] = sum(cores)  # noqa: PLW2901 - the mask with its cores filled up
        cost = count(mask) if room.costs_shared else 0
        if mask & ~room.free or cost > room.slack:
            return None
    return masks


def _cores(core_of: tuple[int, ...], mask: int) -> set[int]:
    return {core for bit, core in enumerate(core_of) if mask >> bit & 1}


def _extended(board: Board, outcome: Outcome, new: list[int]) -> Outcome | None:
    """The same with CPUs for further vCPUs on its one node; None where that has none."""
    if len(outcome.seats) > 1:
        return None
    [place] = outcome.seats
    settle(board, outcome)
    if board.capacity(place, outcome.wanted.policy, True) < len(new):
        unsettle(board, outcome)
        return None
    choice = Choice({place: tuple(new)}, outcome.why)
    more = seated(board, _beside(outcome.wanted, new), choice, True)
    outcome.cpus = {**outcome.cpus, **more.cpus}
    outcome.masks = {place: outcome.masks[place] | more.masks[place]}
    outcome.seats = {place: outcome.wanted.whole.vcpus}
    return outcome


def _beside(wanted: Demand, vcpus: list[int]) -> Demand:
    """What further vCPUs of a guest need: CPUs; its memory has been counted."""
    return replace(wanted, whole=replace(wanted.whole, vcpus=tuple(vcpus), memory=0, huge={}))
