# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel samepage merging: settings, the laws that control it, and the loop that carries them out.

policy    what a profile may ask          settings  the kernel's files
planner   policy → one plan               masters   who else drives KSM
law       samples, memories, decisions    auto, ksmtuned  the laws (pure)
sampler   the machine → a sample          loop      the thread
record    what the loop does, on tmpfs    tuner     all of it for the engine
"""

from __future__ import annotations

from tuned_virt.ksm.loop import decide
from tuned_virt.ksm.planner import plan
from tuned_virt.ksm.policy import KsmPolicy, parse
from tuned_virt.ksm.settings import FOLDER, SETTINGS, KsmState, read
from tuned_virt.ksm.tuner import KsmTuner

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
