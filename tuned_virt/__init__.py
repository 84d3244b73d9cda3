# SPDX-License-Identifier: GPL-2.0-or-later
"""All of tuned-virt-plus that can be said without TuneD: what to set, why, and the way back."""

from __future__ import annotations

__version__ = "0.2.0"
