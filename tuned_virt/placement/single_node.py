# SPDX-License-Identifier: GPL-2.0-or-later
"""One node for a whole guest: which, and why that one."""

from __future__ import annotations

from collections.abc import Iterator

from tuned_virt.model.guest import Guest
from tuned_virt.placement.assignment import Choice
from tuned_virt.placement.cores import fit
from tuned_virt.placement.demand import Demand
from tuned_virt.placement.host_capacity import Board
from tuned_virt.placement.node_capacity import TINY

Score = tuple[float, ...]
"""Smaller is better: distance of PCI devices, KiB to move, then
dedicated: LLCs spanned, cores torn apart, CPUs left in the LLC, CPUs left in the node;
floating: the node's load with the guest, in shared CPUs needed per shared CPU."""


def choose(board: Board, wanted: Demand, dedicated: bool) -> Choice | None:
    """The best node that has room for all of a guest; None where there is none."""
    rate = _rate_dedicated if dedicated else _rate_floating
    scored = list(rate(board, wanted, _with_memory(board, wanted)))
    if not scored:
        return None
    best = min(scored)
    scored.remove(best)
    why = _why(board, wanted, best, min(scored, default=None), dedicated)
    return Choice({best[1]: wanted.whole.vcpus}, why)


def _with_memory(board: Board, wanted: Demand) -> list[int]:
    """Places where its memory fits. Here and below loops are plain: they run for each guest and
    node."""
    whole, memory = wanted.whole, board.banks.memory
    nodes = board.grid.nodes
    fitting = [p for p in places(board, wanted) if memory.get(nodes[p].bank, 0) >= whole.memory]
    if whole.huge:
        return [place for place in fitting if board.fits_memory(whole, place)]
    return fitting


def _rate_floating(
    board: Board, wanted: Demand, possible: list[int]
) -> Iterator[tuple[Score, int]]:
    vcpus, guest = len(wanted.whole.vcpus), wanted.guest
    need = vcpus / wanted.policy.overcommit
    tied = bool(guest.devices or guest.resident)
    for place in possible:
        room = board.rooms[place]
        load = room.load + need
        if load <= room.shared_count + TINY or board.endless:
            ties = _ties(board, guest, place) if tied else (0, 0)
            yield (*ties, round(load / (room.shared_count or 1), 6)), place


def _rate_dedicated(
    board: Board, wanted: Demand, possible: list[int]
) -> Iterator[tuple[Score, int]]:
    vcpus, guest, smt = len(wanted.whole.vcpus), wanted.guest, wanted.policy.smt
    tied = bool(guest.devices or guest.resident)
    for place in possible:
        room = board.rooms[place]
        if room.free_count >= vcpus and room.dedicable(smt) >= vcpus:
            ties = _ties(board, guest, place) if tied else (0, 0)
            spans, torn, over = fit(room, vcpus, guest.threads)
            first = (torn, spans) if guest.threads > 1 else (spans, torn)
            yield (*ties, *first, over, room.free_count - vcpus), place


def _ties(board: Board, guest: Guest, place: int) -> tuple[int, int]:
    return board.device_distance(guest, place), board.to_move(guest, place)


def places(board: Board, wanted: Demand) -> list[int]:
    """Nodes that may take the guest: its owner's, and for memory that cannot move, where it is."""
    found = board.allowed(wanted.whole)
    guest = wanted.guest
    if not guest.resident or guest.movable:
        return found
    there = [place for place in found if guest.resident.get(board.grid.nodes[place].bank)]
    return there or found


def _why(
    board: Board,
    wanted: Demand,
    best: tuple[Score, int],
    second: tuple[Score, int] | None,
    dedicated: bool,
) -> str:
    node = board.grid.nodes[best[1]].id
    if second is None:
        only = "the only node" if len(board.rooms) == 1 else "the only node with room"
        return f"node {node}: {only}"
    other = board.grid.nodes[second[1]].id
    reason = _reason(wanted, best[0], second[0], dedicated)
    return f"node {node}, before node {other}: {reason}"


def _reason(wanted: Demand, best: Score, second: Score, dedicated: bool) -> str:
    decided = next((at for at, (a, b) in enumerate(zip(best, second)) if a != b), None)
    if decided is None:
        return "both are equal, so the lower number"
    a, b = best[decided], second[decided]
    if decided == 0:
        return f"nearer to {_devices(wanted)} (distance +{a:g}, against +{b:g})"
    if decided == 1:
        return f"{a / 2**20:.1f} GiB of its memory are elsewhere, against {b / 2**20:.1f}"
    if not dedicated:
        return f"{100 * a:.0f} % of its shared CPUs needed then, against {100 * b:.0f} %"
    words = ["it spans {} LLCs, against {}", "{} of its cores torn apart, against {}"]
    if wanted.guest.threads > 1:
        words.reverse()
    words += ["{} CPUs of an LLC left over, against {}", "{} free CPUs left over, against {}"]
    return words[decided - 2].format(int(a), int(b))


def _devices(wanted: Demand) -> str:
    devices = wanted.guest.devices
    return f"its device {devices[0]}" if len(devices) == 1 else f"its {len(devices)} devices"


def no_room(board: Board, wanted: Demand, dedicated: bool) -> str:
    """Why no node takes all of a guest: what is missing where most of it is there."""
    vcpus = len(wanted.whole.vcpus)
    rooms = [
        (board.capacity(place, wanted.policy, dedicated), -place) for place in places(board, wanted)
    ]
    if not rooms:
        return "its numatune leaves it no node with CPUs"
    most, place = max(rooms)
    kind = _kind(wanted, dedicated)
    if most < vcpus:
        node = board.grid.nodes[-place].id
        return f"no node has {vcpus} {kind} (node {node} has most: {max(most, 0)})"
    sizes = wanted.whole.huge
    if sizes:
        pages = ", ".join(f"{count} huge pages of {size} KiB" for size, count in sizes.items())
        return f"no node with {vcpus} {kind} has {pages} free"
    gib = wanted.whole.memory / 2**20
    return f"no node with {vcpus} {kind} has {gib:.1f} GiB of memory for it"


def _kind(wanted: Demand, dedicated: bool) -> str:
    if not dedicated:
        return f"vCPUs' room at overcommit={wanted.policy.overcommit:g}"
    return {
        "prefer": "CPUs to dedicate",
        "require": "CPUs of whole cores with SMT to dedicate",
        "isolate": "whole cores to dedicate",
    }[wanted.policy.smt.value]
