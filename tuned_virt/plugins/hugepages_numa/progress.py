# SPDX-License-Identifier: GPL-2.0-or-later
"""An allocation under way, on tmpfs, for `tuned-virt status`."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tuned_virt.core.originals import FOLDER, only_root_writes, start_time
from tuned_virt.plugins.hugepages_numa.writer import Progress

FILE = "hugepages.json"
"""Its name in the state folder."""


class ProgressFile:
    """Written while a pool is being filled; one that cannot be written stops nobody."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._file = folder / FILE

    def write(self, progress: Progress) -> None:
        """Replace the file."""
        pid = os.getpid()
        content = {"pid": pid, "started": start_time(pid), **asdict(progress)}
        new = self._file.with_suffix(".new")
        with contextlib.suppress(OSError):
            with open(new, "w", opener=only_root_writes) as file:
                file.write(json.dumps(content) + "\n")
            os.replace(new, self._file)

    def read(self) -> Progress | None:
        """What is under way; None where nothing is, or whoever did it is gone."""
        try:
            content: dict[str, Any] = json.loads(self._file.read_text())
            alive = start_time(content.pop("pid")) == content.pop("started")
            return Progress(**content) if alive else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remove(self) -> None:
        """Nothing is under way any more."""
        with contextlib.suppress(OSError):
            self._file.unlink()
