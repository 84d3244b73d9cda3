"""One node for a whole guest: which, and why that one."""

from __future__ import annotations

from tuned_virt.placement.board import Board
from tuned_virt.placement.cores import fit
from tuned_virt.placement.demand import Demand
from tuned_virt.placement.outcome import Choice
from tuned_virt.placement.rooms import TINY

Score = tuple[float, ...]
"""Smaller is better: distance of PCI devices, KiB to move, then
dedicated: LLCs spanned, cores torn apart, CPUs left in the LLC, CPUs left in the node;
floating: the node's load with the guest, in shared CPUs needed per shared CPU."""


def choose(board: Board, wanted: Demand, dedicated: bool) -> Choice | None:
    """The best node that has room for all of a guest; None where there is none."""
    vcpus = len(wanted.whole.vcpus)
    scored = [
        (score(board, wanted, place, dedicated), place)
        for place in places(board, wanted)
        if board.capacity(place, wanted.policy, dedicated) >= vcpus
        and board.fits_memory(wanted.whole, place)
    ]
    if not scored:
        return None
    best = min(scored)
    scored.remove(best)
    why = _why(board, wanted, best, min(scored, default=None), dedicated)
    return Choice({best[1]: wanted.whole.vcpus}, why)


def places(board: Board, wanted: Demand) -> list[int]:
    """Nodes that may take the guest: its owner's, and for memory that cannot move, where it is."""
    found = board.allowed(wanted.whole)
    guest = wanted.guest
    if not guest.resident or guest.movable:
        return found
    there = [place for place in found if guest.resident.get(board.grid.nodes[place].bank)]
    return there or found


def score(board: Board, wanted: Demand, place: int, dedicated: bool) -> Score:
    """How well a node suits a guest that it has room for."""
    guest, room = wanted.guest, board.rooms[place]
    tied = (board.device_distance(guest, place), board.to_move(guest, place))
    vcpus = len(wanted.whole.vcpus)
    if dedicated:
        spans, torn, over = fit(room, vcpus, guest.threads)
        if guest.threads > 1:
            return (*tied, torn, spans, over, room.free_count - vcpus)
        return (*tied, spans, torn, over, room.free_count - vcpus)
    load = room.load + vcpus / wanted.policy.overcommit
    return (*tied, round(load / max(room.shared_count, TINY), 6))


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
