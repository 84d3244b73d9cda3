# SPDX-License-Identifier: GPL-2.0-or-later
"""Swapping, write-back and transparent huge pages."""

from __future__ import annotations

from collections.abc import Iterator

from tuned_virt.recommend.advice import Advice, LeftSetting, RecommendedSetting
from tuned_virt.recommend.situation import GIB, Situation, count, size

VM = "https://docs.kernel.org/admin-guide/sysctl/vm.html"
THP = "https://docs.kernel.org/admin-guide/mm/transhuge.html"

RESERVED = 40
"""Percent of the host's memory in guests' huge pages from which the rest is kept in RAM."""

BACKGROUND_PERCENT = 5
"""virtual-host's vm.dirty_background_ratio; a guest's own kernel has 10."""

MOST_DIRTY = 4 * GIB
BACKGROUND = 1 << 30
"""Bytes."""


def recommend(seen: Situation) -> Iterator[Advice]:
    """Of a host, and of a machine that is itself a guest."""
    yield _swappiness(seen)
    yield from _dirty(seen)
    if not seen.in_guest:
        yield from _thp(seen)


def _swappiness(seen: Situation) -> Advice:
    swap = seen.scene.facts.swap.value
    if swap == 0:
        return LeftSetting("swappiness", "the host has no swap, so its value changes little")
    if seen.swap_in_ram.value:
        return RecommendedSetting(
            "swappiness",
            "auto",
            f"{'swap' if swap is None else size(swap) + ' of swap'} in memory (zram or zswap)",
            "swapping to memory costs less than reading a file again, so the kernel advises 133",
            VM,
        )
    share = 100 * seen.huge_memory // seen.memory if seen.memory else 0
    if share >= RESERVED and not seen.in_guest:
        swapped = "swap not known" if swap is None else f"{size(swap)} of swap"
        return RecommendedSetting(
            "swappiness",
            "1",
            f"{size(seen.huge_memory)} of {size(seen.memory)} are huge pages of guests, {swapped}",
            "huge pages are never swapped, so all pressure falls on the little that is left: QEMU"
            " and the host's daemons",
            VM,
        )
    return LeftSetting("swappiness", "the default serves ordinary guests with swap on a disk")


def _dirty(seen: Situation) -> Iterator[Advice]:
    """Huge pages are no memory that can be dirty."""
    able = max(0, seen.memory - seen.huge_memory)
    percent = 2 * BACKGROUND_PERCENT if seen.in_guest else BACKGROUND_PERCENT
    dirty = able * percent // 100
    if dirty > MOST_DIRTY:
        yield RecommendedSetting(
            "dirty_background_bytes",
            str(BACKGROUND),
            f"{percent} % of {size(able)} are {size(dirty)}",
            "so much written back at once keeps a disk busy for long, and all who wait for it",
            VM,
            ("dirty_background_ratio", "dirty_bytes"),
        )
    else:
        yield LeftSetting(
            "dirty_background_bytes", f"{percent} % of {size(able)} are only {size(dirty)}"
        )


def _thp(seen: Situation) -> Iterator[Advice]:
    plain = [one for one in seen.guests if not one.guest.huge_pages]
    if plain and seen.scene.facts.thp.value == "never":
        yield RecommendedSetting(
            "thp",
            "madvise",
            f"transparent huge pages are off, and {count(len(plain), 'guest')} without huge pages",
            "QEMU asks for them for guests' memory, which needs fewer page table entries then",
            THP,
        )
