# SPDX-License-Identifier: GPL-2.0-or-later
"""The history of changes: one JSON line each, bounded to two files of 1 MiB."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator

from tuned_virt.core.plan import Change
from tuned_virt.core.state_file import make_folder, only_root_writes
from tuned_virt.frozen_dataclasses import dataclass, typed
from tuned_virt.kernel import file_lock
from tuned_virt.kernel.files import AnyPath

log = logging.getLogger("tuned")

FILE = "/var/lib/tuned-virt/journal.jsonl"
TUNED = "tuned"
"""The plugin of an entry that tells what one of TuneD's own plugins changed."""

LIMIT = 1 << 20
"""Bytes after which the journal moves to journal.jsonl.1 and starts anew."""


@dataclass(frozen=True)
class Entry:
    """One change as it was made. `when` is in seconds since the epoch."""

    when: float
    plugin: str
    setting: str
    path: str
    before: str
    after: str
    why: str


class Journal:
    """Appends changes and reads them back. A journal that cannot be written stops nobody."""

    def __init__(self, file: AnyPath = FILE, limit: int = LIMIT) -> None:
        self._file = os.fspath(file)
        self._older = f"{self._file}.1"
        self._limit = limit

    def add(self, plugin: str, change: Change) -> None:
        """Append one change."""
        line = json.dumps(vars(_entry(plugin, change))) + "\n"
        try:
            make_folder(self._file)
            with open(self._file, "a", opener=only_root_writes) as file:
                file_lock.take(file.fileno(), self._file)
                file.write(line)
                if file.tell() > self._limit:
                    os.replace(self._file, self._older)
        except OSError as error:
            log.warning("%s: change not written to the journal: %s", plugin, error)

    def entries(self) -> Iterator[Entry]:
        """All entries, oldest first; a line that is no entry is passed over."""
        for file in (self._older, self._file):
            with contextlib.suppress(FileNotFoundError), open(file, errors="replace") as lines:
                for line in lines:
                    with contextlib.suppress(ValueError, TypeError, RecursionError):
                        yield typed(Entry(**json.loads(line)))


def _entry(plugin: str, change: Change) -> Entry:
    before, after = str(change.before), str(change.after)
    return Entry(time.time(), plugin, change.setting, change.path, before, after, change.why)
