# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that guests ask for, by node: those they have mapped, and those of guests to start. Pure.

A guest's <numatune> says on which nodes its pages are to be (libvirt's formatdomain, "NUMA Node
Tuning"); one without it gets them on the node with most free pages and memory, as it may come to
run anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.libvirt_api.guest_pages import Asking
from tuned_virt.model.guest import Guest
from tuned_virt.plugins.hugepages_numa.setting_types import Pages, Pools, PoolSetting


@dataclass(frozen=True)
class PageDemand:
    """Memory of one guest, in KiB, in pages of one size, on one of some nodes (none: on any)."""

    size_kib: int
    memory: int
    nodes: tuple[int, ...]

    @property
    def pages(self) -> int:
        """In pages."""
        return -(-self.memory // self.size_kib)


def portions(guest: Guest, default_kib: int) -> Iterator[PageDemand]:
    """What a guest asks for, by cell where it has vNUMA cells."""
    owned = guest.owned
    cells: dict[int | None, int] = {cell.id: cell.memory for cell in guest.cells}
    for cell, memory in (cells or {None: guest.memory}).items():
        named = [pages for pages in guest.huge_pages if pages.cells and cell in pages.cells]
        general = [pages for pages in guest.huge_pages if not pages.cells]
        for pages in (named or general)[:1]:
            nodes = owned.memnodes.get(cell, owned.nodes) if cell is not None else owned.nodes
            yield PageDemand(pages.size or default_kib, memory, tuple(sorted(nodes)))


def asked(
    guests: Iterable[Asking], pools: Pools, default_kib: int, spare: Mapping[int, int]
) -> dict[PoolSetting, int]:
    """Pages by pool; `spare` is each node's memory in KiB that could become huge pages."""
    counts = {setting: pool.mapped for setting, pool in pools.items()}
    idle = [one.guest for one in guests if one.guest is not None and not one.running]
    wanted = [portion for guest in idle for portion in portions(guest, default_kib)]
    for portion in sorted(wanted, key=lambda one: (not one.nodes, -one.memory)):
        size = portion.size_kib
        nodes = [node for node in portion.nodes or spare if PoolSetting(node, size) in pools]
        for node, pages in _shares(portion, nodes, counts, pools, spare):
            counts[PoolSetting(node, size)] += pages
    return {setting: count for setting, count in counts.items() if count}


def _shares(
    portion: PageDemand, nodes: list[int], counts: Pages, pools: Pools, spare: Mapping[int, int]
) -> Iterator[tuple[int, int]]:
    """Pages by node: evenly over the nodes that the owner named, else all on the roomiest."""
    if not nodes:
        return
    if portion.nodes:
        each, more = divmod(portion.pages, len(nodes))
        for number, node in enumerate(nodes):
            yield node, each + (number < more)
        return

    def room(node: int) -> int:
        pool = PoolSetting(node, portion.size_kib)
        return spare[node] + (pools[pool].total - counts[pool]) * portion.size_kib

    yield max(nodes, key=lambda node: (room(node), -node)), portion.pages
