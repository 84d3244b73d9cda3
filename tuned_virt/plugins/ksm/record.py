# SPDX-License-Identifier: GPL-2.0-or-later
"""What the loop is doing, on tmpfs: for `tuned-virt status`, and for a restarted TuneD to go on.

It survives the daemon's `kill -9`; after a reboot the kernel and the guests are new as well, and so
it is keyed by boot id.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tuned_virt.core.originals import boot_id, only_root_writes
from tuned_virt.plugins.ksm.decision import ControllerMemory, Counters, Phase

log = logging.getLogger("tuned")

FILE = "ksm.json"
"""Its name in the state folder."""

KEPT = 10
"""Decisions that are remembered."""


@dataclass(frozen=True)
class LoggedDecision:
    """A decision as it was made. `when` is in seconds since the epoch."""

    when: float
    phase: str
    why: str
    changes: Mapping[str, str]


@dataclass(frozen=True)
class ControllerState:
    """The law with its parameters in words, what it remembers, and its last decisions, oldest
    first."""

    law: str = ""
    memory: ControllerMemory = field(default_factory=ControllerMemory)
    decisions: tuple[LoggedDecision, ...] = ()

    def with_decision(self, made: LoggedDecision) -> tuple[LoggedDecision, ...]:
        """The decisions with one more."""
        return (*self.decisions, made)[-KEPT:]


class ControllerStateFile:
    """One JSON file, replaced atomically. One that cannot be written stops nobody."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._complained = False

    def load(self) -> ControllerState:
        """What is there of this boot; nothing where there is none, or it is damaged."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(self._file.read_text())
            if content["boot_id"] == boot_id():
                decisions = tuple(LoggedDecision(**made) for made in content["decisions"])
                return ControllerState(content["law"], _memory(content["memory"]), decisions)
        return ControllerState()

    def save(self, content: ControllerState) -> None:
        """Replace the file."""
        text = json.dumps({"boot_id": boot_id(), **asdict(content)}, default=sorted)
        new = self._file.with_suffix(".new")
        try:
            self._file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with open(new, "w", opener=only_root_writes) as file:
                file.write(text + "\n")
            os.replace(new, self._file)
        except OSError as error:
            if not self._complained:
                log.warning("ksm: %s is not written: %s", self._file, error)
            self._complained = True

    def remove(self) -> None:
        """Nothing is being done any more."""
        with contextlib.suppress(OSError):
            self._file.unlink()


def _memory(content: dict[str, Any]) -> ControllerMemory:
    marks = {
        name: Counters(**content[name]) for name in ("begun", "judged", "last") if content[name]
    }
    pairs = {
        name: tuple(tuple(pair) for pair in content[name])
        for name in ("written", "contested", "spent")
    }
    resident = tuple(content["resident"])
    known = {one.name: content[one.name] for one in fields(ControllerMemory) if one.name in content}
    phase, guests = Phase(content["phase"]), frozenset(content["guests"])
    plain = {"phase": phase, "guests": guests, "resident": resident}
    return ControllerMemory(**{**known, **marks, **pairs, **plain})
