# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests' memory and CPU limits: the guide's 8.3.2, checked, set live, and put back."""

from tuned_virt.plugins.vm_limits.plugin import LimitsTuner

__all__ = ["LimitsTuner"]
