# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of guests that ran before the profile came, as running= says. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from tuned_virt import placement
from tuned_virt.frozen_dataclasses import dataclass, replace
from tuned_virt.model.guest import Guest
from tuned_virt.placement import Placement, PlacementKind, PlacementMode, PlacementPolicy
from tuned_virt.plugins.vm_pinning.policy import PinningPolicy, RunningGuests

LOCAL = 0.8
"""Part of a running guest's memory that makes a node its own: issue of running=local."""


@dataclass(frozen=True)
class RunningDecision:
    """The policy to place a guest by, and the node that it must stay on; or why it is left.

    ungranted  what its section asks for and it does not get until it starts again
    """

    policy: PlacementPolicy | None = None
    node: int | None = None
    why: str = ""
    ungranted: str = ""


def decide(policy: PinningPolicy, guest: Guest) -> RunningDecision:
    """What becomes of a guest, with so many KiB of its memory on each node."""
    if policy.running is RunningGuests.LEAVE:
        return RunningDecision(
            why="it was running before the profile was activated (running=leave): placed"
            " when it starts again"
        )
    if policy.running is RunningGuests.PLACE:
        return RunningDecision(policy.placement)
    own = placement.of_group(guest, policy.placement)
    node = local_node(guest.resident)
    dedicated = own.policy is PlacementMode.DEDICATED
    ungranted = "policy=dedicated" if dedicated else ""
    if node is None:
        why = f"it was running before, {spread(guest.resident)}"
        return RunningDecision(why=why, ungranted=ungranted)
    floating = replace(own, policy=PlacementMode.NODE)
    return RunningDecision(floating if dedicated else own, node, "", ungranted)


def bound(placed: Placement, node: int | None, ungranted: str = "") -> Placement:
    """A running guest's placement on its own node, or none; any, where it is bound to none."""
    if node is None or placed.kind in (PlacementKind.UNPLACED, PlacementKind.OWNER):
        return placed
    if placed.nodes == (node,):
        return _lacking(placed, ungranted)
    why = (
        f"it was running before, on node {node}, which has no room for it: not placed"
        " (running=local)"
    )
    return placement.unplaced(placed.guest, placed.uuid, why, chosen=True, ungranted=ungranted)


def _lacking(placed: Placement, ungranted: str) -> Placement:
    if not ungranted or placed.kind is not PlacementKind.SHARED or placed.ungranted:
        return placed
    why = f"{placed.why}; it was running before, so it is not dedicated (running=local)"
    return replace(placed, why=why, ungranted=ungranted)


def local_node(resident: Mapping[int, int]) -> int | None:
    """The node that holds nearly all of a guest's memory; None where there is none."""
    total = sum(resident.values())
    return next((node for node, kib in resident.items() if kib >= LOCAL * total > 0), None)


def spread(resident: Mapping[int, int]) -> str:
    """In words where a guest's memory is that no node holds nearly all of."""
    total = sum(resident.values())
    if not total:
        return "and the location of its memory is unknown: not placed (running=local)"
    parts = ", ".join(f"{kib * 100 // total} % on node {n}" for n, kib in resident.items())
    return f"with its memory spread ({parts}): not placed (running=local)"
