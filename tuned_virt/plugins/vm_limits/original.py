# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's limits as they were found."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tuned_virt.core.state_file import WRONG
from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.guests.originals import GuestOriginal, checked

PLUGIN = "vm_limits"
"""Its name among the originals."""


@dataclass(frozen=True)
class OriginalLimits(GuestOriginal):
    """One run of a guest: its limits by libvirt's names, in KiB, and its CPU weight.

    Only what we set is kept; what the owner limits stays the owner's.
    """

    memory: Mapping[str, int] = field(default_factory=dict)
    shares: int | None = None


def parse(text: str) -> OriginalLimits:
    """What `text` wrote. Raises ValueError for anything else."""
    try:
        content = json.loads(text)
        memory = {str(name): int(kib) for name, kib in content["memory"].items()}
        return checked(OriginalLimits(**{**content, "memory": memory}))
    except WRONG as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
