# SPDX-License-Identifier: GPL-2.0-or-later
"""Moving a process's pages to a NUMA node in small batches: move_pages(2), which Python lacks.

Nothing is confined: pages that the process touches later come from wherever its policy says.
Between batches of 2 MiB it breathes, at the rate that was asked for, and can be stopped.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence

from tuned_virt.frozen_dataclasses import dataclass, field

CALL_NUMBER = {"x86_64": 279, "aarch64": 239, "riscv64": 239, "ppc64le": 301, "s390x": 310}
"""move_pages's number by machine, from the kernel's syscall tables."""

MOVE = 2
"""MPOL_MF_MOVE of include/uapi/linux/mempolicy.h: only pages that this process alone maps."""

BATCH = 512
"""Pages a call: 2 MiB of base pages."""

ABSENT = -errno.ENOENT
"""A page's status where nothing is mapped."""


class CannotMigrate(Exception):
    """The kernel has no such call here, or refuses it for this process."""


@dataclass(frozen=True)
class Pace:
    """How fast, in bytes a second (0: as fast as may be), how much in bytes, and what ends it."""

    rate: float
    limit: float
    stop: threading.Event


@dataclass
class MigrationResult:
    """What became of pages that were on other nodes, in bytes; `why` counts refusals by reason."""

    moved: int = 0
    stayed: int = 0
    seconds: float = 0.0
    stopped: bool = False
    why: dict[str, int] = field(default_factory=dict)


def _call(pid: int, pages: Sequence[int], node: int | None) -> list[int]:
    """The status of each page, its node or -errno, after moving it if a node is given."""
    number = CALL_NUMBER.get(os.uname().machine)
    if number is None:
        raise CannotMigrate("move_pages's number is unknown on this machine")
    count = len(pages)
    addresses = (ctypes.c_void_p * count)(*pages)
    targets = None if node is None else (ctypes.c_int * count)(*([node] * count))
    status = (ctypes.c_int * count)()
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.syscall(
        ctypes.c_long(number),
        ctypes.c_int(pid),
        ctypes.c_ulong(count),
        addresses,
        targets,
        status,
        ctypes.c_int(MOVE),
    )
    if done < 0:
        raise CannotMigrate(os.strerror(ctypes.get_errno()))
    return list(status)


def _batches(ranges: Iterable[tuple[int, int]], page: int) -> Iterator[range]:
    for start, end in ranges:
        for first in range(start, end, BATCH * page):
            yield range(first, min(end, first + BATCH * page), page)


def move(
    pid: int, ranges: Iterable[tuple[int, int]], nodes: Sequence[int], pace: Pace
) -> MigrationResult:
    """Move what is in address ranges and on none of the nodes to them, in turn.

    Raises CannotMigrate.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    result = MigrationResult()
    began = time.monotonic()
    for turn, batch in enumerate(_batches(ranges, page)):
        if pace.stop.is_set() or result.moved >= pace.limit:
            result.stopped = True
            break
        where = _call(pid, batch, None)
        remote = [address for address, node in zip(batch, where) if node >= 0 and node not in nodes]
        if not remote:
            continue
        _count(result, _call(pid, remote, nodes[turn % len(nodes)]), nodes, page)
        if pace.rate:
            pace.stop.wait(max(0.0, began + result.moved / pace.rate - time.monotonic()))
    result.seconds = time.monotonic() - began
    return result


def _count(result: MigrationResult, status: Iterable[int], nodes: Sequence[int], page: int) -> None:
    for node in status:
        if node in nodes:
            result.moved += page
        elif node != ABSENT:
            result.stayed += page
            why = os.strerror(-node) if node < 0 else "left by the kernel"
            result.why[why] = result.why.get(why, 0) + page
