# SPDX-License-Identifier: GPL-2.0-or-later
"""What running guests have of a host's memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Host
from tuned_virt.placement.demand import demand
from tuned_virt.placement.node_capacity import MemoryShare, NodeMemory
from tuned_virt.placement.policy import PlacementPolicy

ANY = PlacementPolicy()


def resident(guest: Guest, host: Host) -> list[MemoryShare]:
    """Where its memory is now; huge pages by the size that it asks for."""
    whole = demand(guest, ANY, host.huge_page).whole if guest.huge_pages else None
    size = next(iter(whole.huge), 0) if whole else 0
    return [
        MemoryShare(node, 0 if size else kib, {size: kib / size} if size else {})
        for node, kib in sorted(guest.resident.items())
        if node in host.by_id and kib > 0
    ]


def for_guests(host: Host, guests: Iterable[Guest]) -> Host:
    """A host whose free memory and pages were measured, as the planner takes it.

    What these guests have now counts as free: the planner uses up what each guest asks for, where
    it places it, or what it has where it is.
    """
    if all(node.available is None for node in host.nodes):
        return host
    memory = NodeMemory(host)
    for guest in guests:
        memory.charge(resident(guest, host), -1)
    nodes = tuple(
        replace(
            node,
            available=int(memory.memory[node.id]),
            free_pages={
                size: int(memory.huge.get((node.id, size), pages))
                for size, pages in (node.free_pages or {}).items()
            },
        )
        for node in host.nodes
    )
    return replace(host, nodes=nodes)
