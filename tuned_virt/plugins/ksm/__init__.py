# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel samepage merging.

policy      what a profile may ask          state           the kernel's files, read
planner     policy → one plan               conflicts       who else sets KSM
decision    samples, memories, decisions    auto, ksmtuned  the algorithms (pure); speed: of auto
sampler     the machine → a sample          controller      the thread that carries decisions out
controller_state  what it does and remembers, on tmpfs
memory_cgroups  those that hold merged pages, and what they can take
plugin      all of it for the engine
"""

from __future__ import annotations

from tuned_virt.plugins.ksm.planner import plan
from tuned_virt.plugins.ksm.plugin import KsmTuner
from tuned_virt.plugins.ksm.policy import KsmPolicy, parse
from tuned_virt.plugins.ksm.state import FOLDER, SETTINGS, KsmState, read

__all__ = (
    "FOLDER",
    "SETTINGS",
    "KsmPolicy",
    "KsmState",
    "KsmTuner",
    "parse",
    "plan",
    "read",
)
