# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory policy of the calling thread (set_mempolicy(2)), which Python itself cannot set."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
from collections.abc import Iterator, Set

log = logging.getLogger("tuned")

CALL_NUMBER = {"x86_64": 238, "aarch64": 237, "riscv64": 237, "ppc64le": 261, "s390x": 270}
"""set_mempolicy's number by machine, from the kernel's syscall tables."""

DEFAULT = 0
INTERLEAVE = 3
"""MPOL_DEFAULT and MPOL_INTERLEAVE of the kernel's include/uapi/linux/mempolicy.h."""


@contextlib.contextmanager
def interleaved(nodes: Set[int]) -> Iterator[None]:
    """What this thread makes the kernel allocate meanwhile comes from the nodes in turn.

    On a machine where the policy cannot be set it stays as it is, and the log says so.
    """
    set_here = len(nodes) > 1 and _set(INTERLEAVE, nodes)
    try:
        yield
    finally:
        if set_here:
            _set(DEFAULT, frozenset())


def _set(mode: int, nodes: Set[int]) -> bool:
    number = CALL_NUMBER.get(os.uname().machine)
    if number is None:
        log.info("memory policy not set: set_mempolicy's number is unknown on this machine")
        return False
    words = max(nodes, default=0) // 64 + 1
    mask = (ctypes.c_uint64 * words)()
    for node in nodes:
        mask[node // 64] |= 1 << node % 64
    libc = ctypes.CDLL(None, use_errno=True)
    length = ctypes.c_ulong(words * 64 + 1)  # the kernel takes one bit less
    if libc.syscall(ctypes.c_long(number), ctypes.c_int(mode), mask if nodes else None, length):
        log.info("memory policy not set: %s", os.strerror(ctypes.get_errno()))
        return False
    return True
