# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests pinned as they start: the planner's placements, carried out, held, verified, undone."""

from tuned_virt.plugins.vm_pinning.isolation.controller import IsolationTuner
from tuned_virt.plugins.vm_pinning.plugin import ConfigurationRestore, PinningTuner

__all__ = ["ConfigurationRestore", "IsolationTuner", "PinningTuner"]
