# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages moved between nodes, in this process's own memory."""

from __future__ import annotations

import mmap
import os
import threading

import pytest

from tuned_virt.kernel import migrate_pages, numa_maps
from tuned_virt.kernel.files import KernelFS


def test_pages_that_are_there_are_not_moved() -> None:
    length = 8 << 20
    with mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(b"x" * length)
        areas = numa_maps.read(KernelFS(), os.getpid())
        here = sorted(numa_maps.by_node(areas))
        if not here:
            pytest.skip("this kernel has no numa_maps")
        ranges = [(area.start, area.end) for area in areas]
        pace = migrate_pages.Pace(0, float("inf"), threading.Event())
        moved = migrate_pages.move(os.getpid(), ranges, here, pace)
        assert (moved.moved, moved.stayed, moved.stopped) == (0, 0, False)
        pace.stop.set()
        assert migrate_pages.move(os.getpid(), ranges, here, pace).stopped
