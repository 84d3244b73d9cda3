# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel samepage merging: settings, the laws that control it, and the loop that carries them out.

policy    what a profile may ask          settings  the kernel's files
planner   policy → one plan               masters   who else drives KSM
law       samples, memories, decisions    auto, ksmtuned  the laws (pure)
sampler   the machine → a sample          loop      the thread
record    what the loop does, on tmpfs    tuner     all of it for the engine
"""

from __future__ import annotations

from tuned_virt.plugins.ksm.controller import decide
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
    "decide",
    "parse",
    "plan",
    "read",
)
