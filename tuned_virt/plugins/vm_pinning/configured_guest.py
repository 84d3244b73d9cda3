# SPDX-License-Identifier: GPL-2.0-or-later
"""That a guest's configuration has pins of ours: what is kept of it."""

from __future__ import annotations

import json

from tuned_virt.core.state_file import WRONG
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.guests.originals import SEPARATOR, GuestOriginal, checked
from tuned_virt.plugins.vm_pinning.original import PLUGIN

RECORD = f"{PLUGIN}_configuration"
"""Its name among the originals."""


@dataclass(frozen=True)
class ConfiguredGuest(GuestOriginal):
    """A guest whose configuration has pins of ours. It need not run: there is no process."""

    @property
    def key(self) -> str:
        """The setting's name among the originals."""
        return key(self.uuid)


def key(uuid: str) -> str:
    """A guest's configuration's name among the originals."""
    return f"{uuid}{SEPARATOR}configuration"


def parse(text: str) -> ConfiguredGuest:
    """What `text` wrote. Raises ValueError for anything else."""
    try:
        return checked(ConfiguredGuest(**json.loads(text)))
    except WRONG as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
