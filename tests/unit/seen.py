# SPDX-License-Identifier: GPL-2.0-or-later
"""Examples are drawn until all was seen that a test asks for, and no longer."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

UNTIL_SEEN = settings(
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[*HealthCheck],
)
"""What is counted must be the same each time."""


COSTLY = settings(max_examples=max(5, settings().max_examples // 8))
"""Where one example costs as much as ten of another test."""


class SeenEnough(Exception):
    """Raised in a property, it ends hypothesis' search."""


def seen_enough(enough: bool) -> None:
    """End the search, or go on."""
    if enough:
        raise SeenEnough
