# SPDX-License-Identifier: GPL-2.0-or-later
"""Where threads may run."""

from __future__ import annotations

import os
import threading
import time

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
