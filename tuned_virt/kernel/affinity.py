# SPDX-License-Identifier: GPL-2.0-or-later
"""Where threads may run, as masks (sched_getaffinity(2)).

Python's own call makes a set of all CPUs for each thread: on 1,024 CPUs it takes 30 times as long.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator

SIZES = (8, 128, 1024)
"""Bytes of a mask: for small machines, for most, and for the 8,192 CPUs that Linux has at most. The
kernel refuses one that is too small for its CPUs, whichever thread is asked for."""

OWN = 0
"""The thread that asks."""


def masks(threads: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Each thread with the CPUs where it may run, as bits; without those that have ended."""
    call = ctypes.CDLL(None).sched_getaffinity
    for size, mask in map(_room, SIZES):
        if not call(OWN, size, mask):
            break
    for thread in threads:
        if not call(thread, size, mask):
            yield thread, int.from_bytes(mask.raw, "little")


def _room(size: int) -> tuple[ctypes.c_size_t, ctypes.Array[ctypes.c_char]]:
    return ctypes.c_size_t(size), ctypes.create_string_buffer(size)
