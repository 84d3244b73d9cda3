# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that guests ask for, by node: those they have mapped, and those of guests to start. Pure.

A guest's <numatune> says on which nodes its pages are to be (libvirt's formatdomain, "NUMA Node
Tuning"); one without it gets them on the node with most free pages and memory, as it may come to
run anywhere; nodes without CPUs (CXL, HBM, a GPU's memory) come last.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.libvirt_api.guest_pages import Asking
from tuned_virt.model.guest import Guest, MemoryDevice
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


@dataclass(frozen=True)
class DemandSpread:
    """Pages by pool, mapped ones included; `far` are those of guests that name no node and that no
    node with CPUs has room for."""

    pages: Pages
    far: Pages


def portions(guest: Guest, default_kib: int, base_kib: int = 4) -> Iterator[PageDemand]:
    """What a guest asks for at its start: its cells' memory, and its memory devices'.

    Pages of `base_kib` are no huge ones for libvirt.
    """
    cells: dict[int | None, int] = {cell.id: cell.memory for cell in guest.cells}
    for cell, memory in (cells or {None: guest.memory}).items():
        added = [one for one in guest.memory_devices if cell in (None, one.cell)]
        own = memory - sum(device.memory for device in added)
        size = _page_size(guest, cell, default_kib)
        yield from _demand(size, own, _nodes(guest, cell), base_kib)
        for device in added:
            yield from _of_device(guest, device, device.memory, default_kib, base_kib)


def growing(guest: Guest, default_kib: int, base_kib: int = 4) -> Iterator[PageDemand]:
    """What a running guest's virtio-mem devices are still to get."""
    for device in guest.memory_devices:
        yield from _of_device(guest, device, device.growing, default_kib, base_kib)


def _of_device(
    guest: Guest, device: MemoryDevice, memory: int, default_kib: int, base_kib: int
) -> Iterator[PageDemand]:
    """So much of a device, in its own pages on its own nodes, or as its cell's."""
    size = device.page_kib or _page_size(guest, device.cell, default_kib)
    nodes = tuple(sorted(device.nodes)) or _nodes(guest, device.cell)
    yield from _demand(size, memory, nodes, base_kib)


def _demand(
    size: int | None, memory: int, nodes: tuple[int, ...], base_kib: int
) -> Iterator[PageDemand]:
    if size is not None and size != base_kib and memory:
        yield PageDemand(size, memory, nodes)


def invalid(guest: Guest) -> str:
    """Why libvirt does not start a guest with these pages; "" for nothing of the kind.

    It takes nodeset='0' for all where there are no vNUMA cells.
    """
    cells = {cell.id for cell in guest.cells} or {0}
    missing = {cell for pages in guest.huge_pages for cell in pages.cells or ()} - cells
    if not missing:
        return ""
    return f"<hugepages> names vNUMA cell {min(missing)}, which it does not have"


def _page_size(guest: Guest, cell: int | None, default_kib: int) -> int | None:
    """KiB of the pages of a cell, or of a guest without cells, which libvirt takes for cell 0."""
    cell = cell or 0
    named = [pages for pages in guest.huge_pages if pages.cells and cell in pages.cells]
    general = [pages for pages in guest.huge_pages if not pages.cells]
    for pages in (named or general)[:1]:
        return pages.size or default_kib
    return None


def _nodes(guest: Guest, cell: int | None) -> tuple[int, ...]:
    owned = guest.owned
    found = owned.nodes if cell is None else owned.memnodes.get(cell, owned.nodes)
    return tuple(sorted(found))


def asked(
    guests: Iterable[Asking], pools: Pools, default_kib: int, spare: Mapping[int, int]
) -> Pages:
    """Pages by pool, see `spread`, where all nodes have CPUs."""
    return spread(guests, pools, default_kib, spare, ()).pages


def spread(  # noqa: PLR0913 - the guests, and all that their pages' place depends on
    guests: Iterable[Asking],
    pools: Pools,
    default_kib: int,
    spare: Mapping[int, int],
    without_cpus: Collection[int],
    base_kib: int = 4,
) -> DemandSpread:
    """Pages by pool; `spare` is each node's memory in KiB that could become huge pages."""
    counts = {setting: pool.mapped for setting, pool in pools.items()}
    far: dict[PoolSetting, int] = {}
    wanted = [
        portion
        for one in guests
        if one.guest is not None
        for portion in (growing if one.running else portions)(one.guest, default_kib, base_kib)
    ]
    for portion in sorted(wanted, key=lambda one: (not one.nodes, -one.memory)):
        size = portion.size_kib
        nodes = [node for node in portion.nodes or spare if PoolSetting(node, size) in pools]
        for node, pages in _shares(portion, nodes, counts, pools, spare, without_cpus):
            pool = PoolSetting(node, size)
            counts[pool] += pages
            if not portion.nodes and node in without_cpus:
                far[pool] = far.get(pool, 0) + pages
    return DemandSpread({setting: count for setting, count in counts.items() if count}, far)


def _shares(  # noqa: PLR0913 - one portion and all that its place depends on
    portion: PageDemand,
    nodes: list[int],
    counts: Pages,
    pools: Pools,
    spare: Mapping[int, int],
    without_cpus: Collection[int],
) -> Iterator[tuple[int, int]]:
    """Pages by node: evenly over the nodes that the owner named; else all on the roomiest, of those
    that have room one with CPUs if there is one."""
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

    def order(node: int) -> tuple[bool, bool, int, int]:
        return room(node) >= portion.memory, node not in without_cpus, room(node), -node

    yield max(nodes, key=order), portion.pages
