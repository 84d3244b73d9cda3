# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's limits as they were found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from tuned_virt.guests.originals import key

PLUGIN = "vm_limits"
"""Its name in the baseline."""


@dataclass(frozen=True)
class OriginalLimits:
    """One run of a guest: its limits by libvirt's names, in KiB, and its CPU weight.

    Only what we set is kept; what the owner limits stays the owner's.
    """

    uri: str
    uuid: str
    name: str
    id: int
    pid: int
    start: int
    memory: Mapping[str, int] = field(default_factory=dict)
    shares: int | None = None

    @property
    def key(self) -> str:
        """The setting's name in the baseline."""
        return key(self.uuid, self.id, self.start)

    def text(self) -> str:
        """As it is kept."""
        return json.dumps(asdict(self))


def parse(text: str) -> OriginalLimits:
    """What `text` wrote. Raises ValueError for anything else."""
    try:
        content = json.loads(text)
        memory = {str(name): int(kib) for name, kib in content["memory"].items()}
        return OriginalLimits(**{**content, "memory": memory})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
