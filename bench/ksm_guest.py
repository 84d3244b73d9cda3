# SPDX-License-Identifier: GPL-2.0-or-later
"""A stand-in for a guest's memory: run by a copy of Python that is called qemu-system-x86_64.

Prints "ready" when its memory is filled, and ends with its stdin. It is mergeable from the line
"go" on, or, with "at-once", before it is filled, as QEMU's is.
It runs by itself and imports nothing of this checkout.

Every page is one of 256 random blocks with a 16-byte stamp, unique to the content, at one of four
places in it. So a comparison of two pages ends at their first bytes, or as late as at their last.
"""

from __future__ import annotations

import mmap
import random
import sys
from collections.abc import Iterator

PAGE = 4096
MIB = 768
ALIKE = 0.6
"""Share of a guest's pages whose content every guest has."""

COPIES = 3
"""Times that such content lies in each guest."""

BLOCKS = 256
STAMPS = (0, 64, 1024, PAGE - 16)
SEED = 20
PAGES = MIB * 2**20 // PAGE
DISTINCT = int(PAGES * ALIKE / COPIES)
"""Different contents among the alike pages."""

THP = False
"""Whether the memory may be of huge pages; KSM then splits them, which no counter of it shows."""


def to_gain(guests: int) -> int:
    """Pages that merging saves at best."""
    return DISTINCT * (COPIES * guests - 1)


def contents(guest: int, alike: bool) -> list[tuple[int, int]]:
    """What lies in a guest's pages, as (owner, number), in its own pseudo-random order."""
    shared = [(0, number) for number in range(DISTINCT)] * COPIES if alike else []
    pages = shared + [(guest, number) for number in range(PAGES - len(shared))]
    random.Random(guest).shuffle(pages)  # noqa: S311
    return pages


def written(pages: list[tuple[int, int]]) -> Iterator[bytes]:
    """The bytes of those pages."""
    source = random.Random(SEED)  # noqa: S311
    blocks = [source.randbytes(PAGE) for _ in range(BLOCKS)]
    for owner, number in pages:
        block = blocks[number % BLOCKS]
        at = STAMPS[number // BLOCKS % len(STAMPS)]
        stamp = number.to_bytes(8, "little") + owner.to_bytes(8, "little")
        yield block[:at] + stamp + block[at + len(stamp) :]


def main() -> None:
    """Arguments: the guest's number, from 1; "alike" or "unique"; "waits" or "at-once"."""
    memory = mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE if THP else mmap.MADV_NOHUGEPAGE)
    if sys.argv[3] == "at-once":
        memory.madvise(mmap.MADV_MERGEABLE)
    for page in written(contents(int(sys.argv[1]), sys.argv[2] == "alike")):
        memory.write(page)
    print("ready", flush=True)
    if sys.stdin.readline() == "go\n":
        memory.madvise(mmap.MADV_MERGEABLE)
        print("merging", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
