# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest needs of a host, in the planner's terms."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from tuned_virt.model.guest import Guest, HugePages
from tuned_virt.placement.policy import MemoryMode, PlacementMode, PlacementPolicy

ORDINARY_KIB = 64
"""Pages up to this size are a kernel's base pages, not huge ones (64 KiB on ARM and POWER)."""


@dataclass(frozen=True)
class GuestPart:
    """vCPUs and memory that belong together: a vNUMA cell, or the guest where it has none.

    memory   KiB of ordinary pages in use; huge: page size in KiB → number of pages
    allowed  numbers of the nodes that its owner's numatune leaves, None for all
    """

    cell: int
    vcpus: tuple[int, ...]
    memory: int
    huge: Mapping[int, int]
    allowed: frozenset[int] | None = None


@dataclass(frozen=True)
class GuestDemand:
    """A guest with its policy: all of it as one part, and its vNUMA cells where it has several."""

    guest: Guest
    policy: PlacementPolicy
    whole: GuestPart
    cells: tuple[GuestPart, ...]

    @property
    def dedicated(self) -> bool:
        """Whether it asks for CPUs of its own."""
        return self.policy.policy is PlacementMode.DEDICATED

    @property
    def crowds(self) -> bool:
        """Whether it may leave floating guests with fewer CPUs than vCPUs."""
        return self.dedicated and self.policy.overcommit is None

    @property
    def cpus(self) -> float:
        """Shared CPUs that it needs where it floats."""
        return len(self.whole.vcpus) / self.policy.vcpus_per_cpu

    @property
    def memory_is_ours(self) -> bool:
        """Whether its memory is to be where the plan says; else it stays where it is."""
        guest = self.guest
        if self.policy.memory is MemoryMode.NONE or guest.owned.memory or guest.owned.memnodes:
            return False
        return guest.movable or not guest.resident

    @property
    def uniform(self) -> bool:
        """Whether its owner leaves all its cells the same nodes."""
        return not self.cells or all(cell.allowed == self.whole.allowed for cell in self.cells)

    @cached_property
    def shape(self) -> Hashable:
        """Equal for guests of which, on any host, either all can be placed or none."""
        guest = self.guest
        return (
            self.policy.smt,
            self.policy.overcommit,
            guest.partition,
            guest.threads,
            _shape(self.whole),
            tuple(map(_shape, self.cells)),
            () if guest.movable else tuple(sorted(guest.resident)),
        )

    @property
    def hardness(self) -> tuple[object, ...]:
        """Sorts the hardest to place first; the same whatever order guests come in."""
        guest, whole = self.guest, self.whole
        tied = bool(guest.devices or whole.huge or whole.allowed is not None) or (
            bool(guest.resident) and not guest.movable
        )
        return (
            not self.dedicated,
            not tied,
            -len(whole.vcpus),
            -whole.memory,
            guest.name,
            guest.key,
        )


def _shape(part: GuestPart) -> Hashable:
    return len(part.vcpus), part.memory, tuple(sorted(part.huge.items())), part.allowed


def demand(guest: Guest, policy: PlacementPolicy, default_page: int) -> GuestDemand:
    """What a guest needs; default_page is the host's default size of huge pages in KiB."""
    nodes = guest.owned.nodes or None
    if not guest.cells:
        whole = _part(guest, -1, guest.online, guest.memory, default_page)
        return GuestDemand(guest, policy, _within(whole, nodes), ())
    cells = tuple(
        _within(_cell(guest, node_index, default_page), guest.owned.memnodes.get(cell.id, nodes))
        for node_index, cell in enumerate(guest.cells)
    )
    whole = GuestPart(
        -1, guest.online, sum(cell.memory for cell in cells), _sum(cells), _common(cells)
    )
    return GuestDemand(guest, policy, whole, cells if len(cells) > 1 else ())


def _cell(guest: Guest, node_index: int, default_page: int) -> GuestPart:
    """A cell's part; vCPUs that are in no cell are the first cell's, as QEMU has it."""
    cell = guest.cells[node_index]
    vcpus = [vcpu for vcpu in guest.online if vcpu in cell.vcpus]
    if node_index == 0:
        inside = frozenset[int]().union(*(other.vcpus for other in guest.cells))
        vcpus = sorted({*vcpus, *(vcpu for vcpu in guest.online if vcpu not in inside)})
    return _part(guest, cell.id, tuple(vcpus), cell.memory, default_page)


def _part(guest: Guest, cell: int, vcpus: tuple[int, ...], memory: int, default: int) -> GuestPart:
    """A part with its memory; what a balloon keeps is missing in all cells alike, but no huge page
    is given back."""
    size = _page_size(guest.huge_pages, cell, default)
    if size > ORDINARY_KIB:
        return GuestPart(cell, vcpus, 0, {size: -(-memory // size)})
    if guest.ballooned:
        memory -= memory * guest.ballooned // guest.memory
    return GuestPart(cell, vcpus, memory, {})


def _page_size(pages: Iterable[HugePages], cell: int, default: int) -> int:
    """Of a cell's memory: the entry that names it, else the one that names none; 0 for base."""
    size = 0
    for page in pages:
        if page.cells is not None and (cell in page.cells or cell < 0):
            return page.size or default
        if page.cells is None:
            size = page.size or default
    return size


def _within(part: GuestPart, nodes: frozenset[int] | None) -> GuestPart:
    return GuestPart(part.cell, part.vcpus, part.memory, part.huge, nodes) if nodes else part


def _sum(parts: Iterable[GuestPart]) -> dict[int, int]:
    total: dict[int, int] = {}
    for part in parts:
        for size, count in part.huge.items():
            total[size] = total.get(size, 0) + count
    return total


def _common(parts: Iterable[GuestPart]) -> frozenset[int] | None:
    """Nodes that all parts may use; an empty set sends the cells to different nodes."""
    sets = [part.allowed for part in parts if part.allowed is not None]
    return frozenset.intersection(*sets) if sets else None
