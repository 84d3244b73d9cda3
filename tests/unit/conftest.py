# SPDX-License-Identifier: GPL-2.0-or-later
"""For the unit tests."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")  # a loaded machine is no defect
