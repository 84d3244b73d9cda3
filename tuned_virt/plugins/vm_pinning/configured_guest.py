# SPDX-License-Identifier: GPL-2.0-or-later
"""That a guest's configuration has pins of ours: what the baseline keeps of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from tuned_virt.guests.originals import SEPARATOR
from tuned_virt.plugins.vm_pinning.original import PLUGIN

RECORD = f"{PLUGIN}_configuration"
"""Its name in the baseline."""


@dataclass(frozen=True)
class ConfiguredGuest:
    """A guest whose configuration has pins of ours. It need not run: there is no process."""

    uri: str
    uuid: str
    name: str
    id: int = 0
    pid: int = 0
    start: int = 0

    @property
    def key(self) -> str:
        """The setting's name in the baseline."""
        return key(self.uuid)

    def text(self) -> str:
        """As it is kept."""
        return json.dumps(asdict(self))


def key(uuid: str) -> str:
    """A guest's configuration's name in the baseline."""
    return f"{uuid}{SEPARATOR}configuration"


def parse(text: str) -> ConfiguredGuest:
    """What `text` wrote. Raises ValueError for anything else."""
    try:
        return ConfiguredGuest(**json.loads(text))
    except TypeError as error:
        raise ValueError(f"TypeError: {error}") from error
