# SPDX-License-Identifier: GPL-2.0-or-later
"""What was advised in the last minutes, on tmpfs."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from tuned_virt.core.state_file import NOT_THERE, StateFile, UnusableStateError
from tuned_virt.numad.advice import LASTS, Advised

ADVISED = "numad.json"
"""In the folder of state."""


class AdviceRecord:
    """The advice of the last minutes."""

    def __init__(self, folder: str) -> None:
        path = os.path.join(folder, ADVISED)
        self._file = StateFile(path, lambda content: list(map(_advised, content["advised"])))

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Nobody else advises meanwhile. Raises OSError."""
        return self._file.locked()

    def read(self, now: float) -> list[Advised]:
        """What still counts; one that cannot be used counts as none. Raises OSError."""
        try:
            found = self._file.read()
        except UnusableStateError:
            return []
        known = [] if found is NOT_THERE else found
        return [one for one in known if 0 <= now - one.time < LASTS]

    def write(self, advised: list[Advised]) -> None:
        """Replace it. Raises OSError."""
        self._file.write({"advised": [one._asdict() for one in advised]})


def _advised(content: dict[str, Any]) -> Advised:
    available = {int(node): int(mib) for node, mib in content["available"].items()}
    placed = {int(node): float(number) for node, number in content["placed"].items()}
    time, nodes_of = float(content["time"]), tuple(map(int, content["nodes"]))
    if not nodes_of:
        raise ValueError("an advice without nodes")
    vcpus, mib, huge = int(content["vcpus"]), int(content["mib"]), bool(content["huge"])
    return Advised(nodes_of, vcpus, mib, available, placed, time, huge)
