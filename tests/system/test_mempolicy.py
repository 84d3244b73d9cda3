# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory policy on the real kernel; that pages follow it is shown in tests/vm, on four nodes."""

from __future__ import annotations

import re
import threading
from pathlib import Path

from tuned_virt.kernel import mempolicy
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model import topology


def policy_of_this_thread() -> str:
    """That of the stack, which follows the thread's (proc(5), numa_maps)."""
    text = Path(f"/proc/self/task/{threading.get_native_id()}/numa_maps").read_text()
    found = re.search(r"^\S+ (\S+) .*stack", text, re.MULTILINE)
    assert found
    return found[1]


def test_the_policy_holds_inside_alone() -> None:
    node = min(topology.memory_nodes(KernelFS()))
    with mempolicy.interleaved({node}):
        assert policy_of_this_thread() == "default", "one node needs none"
    assert mempolicy._set(mempolicy.INTERLEAVE, {node})
    assert policy_of_this_thread() == f"interleave:{node}"
    assert mempolicy._set(mempolicy.DEFAULT, frozenset())
    assert policy_of_this_thread() == "default"
