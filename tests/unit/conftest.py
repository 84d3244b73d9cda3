# SPDX-License-Identifier: GPL-2.0-or-later
"""For the unit tests."""

from __future__ import annotations

import os

from hypothesis import settings

# A loaded machine is no defect, so nothing has a deadline.
settings.register_profile("quick", deadline=None, max_examples=25)
settings.register_profile("thorough", deadline=None, max_examples=200)
settings.load_profile("thorough" if os.environ.get("CI") == "true" else "quick")
