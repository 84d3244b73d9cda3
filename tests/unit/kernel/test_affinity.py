# SPDX-License-Identifier: GPL-2.0-or-later
"""Where threads may run."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from tuned_virt.kernel import affinity


def test_masks_are_the_kernels_and_what_has_ended_has_none() -> None:
    allowed = os.sched_getaffinity(0)
    mask = sum(1 << cpu for cpu in allowed)
    ended = threading.Thread(target=lambda: None)
    ended.start()
    ended.join()
    assert ended.native_id is not None
    while os.path.exists(f"/proc/self/task/{ended.native_id}"):
        time.sleep(0.001)  # join() returns a moment before the kernel's thread has ended
    own = threading.get_native_id()
    assert list(affinity.masks([os.getpid(), ended.native_id, own])) == [
        (os.getpid(), mask),
        (own, mask),
    ]


def kernel(monkeypatch: pytest.MonkeyPatch, cpus: int) -> None:
    """One that refuses a mask too small for its CPUs; all threads run on the last one."""

    def call(_thread: int, size: ctypes.c_size_t, mask: Any) -> int:
        if 8 * size.value < cpus:
            return -1
        mask[(cpus - 1) // 8] = 1 << (cpus - 1) % 8
        return 0

    library = SimpleNamespace(sched_getaffinity=call)
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: library)


@pytest.mark.parametrize("cpus", [1, 64, 65, 1024, 1025, 8192])
def test_a_mask_has_room_for_all_cpus(cpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel(monkeypatch, cpus)
    assert list(affinity.masks([7, 8])) == [(7, 1 << cpus - 1), (8, 1 << cpus - 1)]


def test_a_kernel_that_refuses_all_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel(monkeypatch, 1 << 20)
    assert list(affinity.masks([7])) == []
