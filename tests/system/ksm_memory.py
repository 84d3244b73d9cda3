# SPDX-License-Identifier: GPL-2.0-or-later
"""Hold mergeable memory until stdin closes: MIB of equal pages in each of COUNT processes."""

from __future__ import annotations

import mmap
import os
import sys


def main() -> None:
    """Arguments: MIB COUNT. Prints "ready" once all is written."""
    mib, count = int(sys.argv[1]), int(sys.argv[2])
    for _ in range(count - 1):
        if os.fork() == 0:
            break
    memory = mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_MERGEABLE)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for page in range(0, mib << 20, mmap.PAGESIZE):
        memory[page : page + 8] = (page // mmap.PAGESIZE % 7).to_bytes(8, "little")
    os.write(1, b"ready\n")  # one write: two processes print
    sys.stdin.read()


if __name__ == "__main__":
    main()
