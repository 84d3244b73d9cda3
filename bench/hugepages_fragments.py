# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory in fragments: little is used, and hardly a block of 2 MiB is free.

    python -m bench.hugepages_fragments GIB

Touches so many GiB in small pages and gives back 15 of 16 of them. In eight of nine blocks of 2 MiB
one page is pinned (a pipe holds it, vmsplice(2)), which compaction cannot move. Says "ready", and
ends with its stdin.

Also tried on Linux 6.18, and a plain write got all 1000 pages of each: half of the pages kept, one
block of five free of pins, and pages of the kernel's own (filled pipes) instead of pinned ones.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import sys

PAGE = 4096
BLOCK = 2 << 20
KEPT_EVERY = 16 * PAGE
SPARED = 9
"""One of so many blocks has no pinned page."""
PIPE_PAGES = 16

MADV_NOHUGEPAGE, MADV_DONTNEED = 15, 4
MAP_POPULATE = 0x8000

LIBC = ctypes.CDLL(None, use_errno=True)


class Iovec(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def fragment(size: int) -> tuple[mmap.mmap, list[int]]:
    """Keep one page in 16 of so many bytes; the memory, and the pipes that pin some of it."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    LIBC.madvise(ctypes.c_void_p(base), ctypes.c_size_t(size), MADV_NOHUGEPAGE)
    for start in range(0, size, BLOCK):
        memory[start : start + BLOCK] = bytes(BLOCK)
    blocks = range(size // BLOCK)
    pipes = pin([base + block * BLOCK for block in blocks if block % SPARED])
    for offset in range(0, size, KEPT_EVERY):
        rest = ctypes.c_void_p(base + offset + PAGE)
        LIBC.madvise(rest, ctypes.c_size_t(KEPT_EVERY - PAGE), MADV_DONTNEED)
    return memory, pipes


def pin(addresses: list[int]) -> list[int]:
    """Have pipes hold the page at each address; their descriptors."""
    kept = []
    for first in range(0, len(addresses), PIPE_PAGES):
        reader, writer = os.pipe()
        for address in addresses[first : first + PIPE_PAGES]:
            page = Iovec(address, PAGE)
            if LIBC.vmsplice(writer, ctypes.byref(page), ctypes.c_ulong(1), 0) != PAGE:
                raise OSError(ctypes.get_errno(), "vmsplice")
        kept += [reader, writer]
    return kept


def more_files() -> None:
    """As many open files as this process may have."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    more_files()
    held = fragment(int(float(sys.argv[1]) * (1 << 30)) // BLOCK * BLOCK)
    print("ready", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdin.read()
