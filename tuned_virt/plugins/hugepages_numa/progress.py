# SPDX-License-Identifier: GPL-2.0-or-later
"""An allocation under way, on tmpfs, for `tuned-virt status`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tuned_virt.core.state_file import FOLDER, HUGE_PAGES_PROGRESS, StateFile
from tuned_virt.frozen_dataclasses import asdict, dataclass, typed
from tuned_virt.kernel.files import AnyPath
from tuned_virt.kernel.procfs import start_time
from tuned_virt.plugins.hugepages_numa.pools import size_name


@dataclass(frozen=True)
class Progress:
    """A pool that is being filled or emptied: pages now, to be, and MiB a second so far."""

    node: int
    size_kib: int
    pages: int
    target: int
    mib_s: float

    def __str__(self) -> str:
        return (
            f"node{self.node}: {self.pages} of {self.target} pages of {size_name(self.size_kib)},"
            f" {self.mib_s:.0f} MiB/s"
        )


class ProgressFile:
    """Written while a pool is being filled; one that cannot be written stops nobody."""

    def __init__(self, folder: AnyPath = FOLDER) -> None:
        self._file = StateFile(os.path.join(folder, HUGE_PAGES_PROGRESS), _progress)
        self.read = self._file.load
        self.remove = self._file.discard

    def write(self, progress: Progress) -> None:
        """Replace the file."""
        pid = os.getpid()
        self._file.save({"pid": pid, "started": start_time(pid), "progress": asdict(progress)})


def _progress(content: Mapping[str, Any]) -> Progress | None:
    """What is under way; None where whoever did it is gone."""
    alive = start_time(content["pid"]) == content["started"]
    return typed(Progress(**content["progress"])) if alive else None
