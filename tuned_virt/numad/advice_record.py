# SPDX-License-Identifier: GPL-2.0-or-later
"""What was advised in the last minutes, on tmpfs."""

# Annotations are no text here: typing compiles those of a NamedTuple, 1 ms for the first of them.

import contextlib
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tuned_virt.core.state_file import NOT_THERE, StateFile, UnusableStateError
from tuned_virt.numad.advice import LASTS, Advised

ADVISED = "numad.json"
"""In the folder of state."""


class Lately(NamedTuple):
    """The advice of the last minutes, and the guests that ran when the last one was given."""

    advised: Sequence[Advised] = ()
    running: frozenset[int] = frozenset()


class AdviceRecord:
    """The advice of the last minutes."""

    def __init__(self, folder: str) -> None:
        self._file = StateFile(os.path.join(folder, ADVISED), _lately)

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Nobody else advises meanwhile. Raises OSError."""
        return self._file.locked()

    def read(self, now: float) -> Lately:
        """What still counts; one that cannot be used counts as none. Raises OSError."""
        try:
            found = self._file.read()
        except UnusableStateError:
            return Lately()
        if found is NOT_THERE:
            return Lately()
        known = [one for one in found.advised if 0 <= now - one.time < LASTS]
        return found._replace(advised=known)

    def write(self, advised: Iterable[Advised], running: Iterable[int]) -> None:
        """Replace it. Raises OSError."""
        content = [one._asdict() for one in advised]
        self._file.write({"advised": content, "running": sorted(running)})


def _lately(content: dict[str, Any]) -> Lately:
    advised = [_advised(one) for one in content["advised"]]
    return Lately(advised, frozenset(map(int, content["running"])))


def _advised(content: dict[str, Any]) -> Advised:
    available = {int(node): int(mib) for node, mib in content["available"].items()}
    time, nodes_of = float(content["time"]), tuple(map(int, content["nodes"]))
    if not nodes_of:
        raise ValueError("an advice without nodes")
    vcpus, mib, huge = int(content["vcpus"]), int(content["mib"]), bool(content["huge"])
    return Advised(nodes_of, vcpus, mib, available, time, huge, int(content["guest"]))
