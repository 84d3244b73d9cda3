# SPDX-License-Identifier: GPL-2.0-or-later
"""What the loop is doing, on tmpfs: for `tuned-virt status`, and for a restarted TuneD to go on.

It survives the daemon's `kill -9`; after a reboot the kernel and the guests are new as well, and so
it is keyed by boot id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuned_virt.core.state_file import StateFile
from tuned_virt.frozen_dataclasses import asdict, dataclass, field, fields, typed
from tuned_virt.kernel.files import AnyPath
from tuned_virt.plugins.ksm.decision import ControllerMemory, Counters, Phase

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
    """The algorithm with its parameters in words, what it remembers, and its last decisions, oldest
    first."""

    algorithm: str = ""
    memory: ControllerMemory = field(default_factory=ControllerMemory)
    decisions: tuple[LoggedDecision, ...] = ()

    def with_decision(self, made: LoggedDecision) -> tuple[LoggedDecision, ...]:
        """The decisions with one more."""
        return (*self.decisions, made)[-KEPT:]


class ControllerStateFile:
    """One JSON file. One that cannot be written stops nobody."""

    def __init__(self, file: AnyPath) -> None:
        self._file = StateFile(file, _state)
        self.remove = self._file.discard

    def load(self) -> ControllerState:
        """What is there of this boot; nothing where there is none that can be used."""
        return self._file.load() or ControllerState()

    def save(self, content: ControllerState) -> None:
        """Replace the file."""
        self._file.save(asdict(content))


def _state(content: Mapping[str, Any]) -> ControllerState:
    decisions = tuple(typed(LoggedDecision(**made)) for made in content["decisions"])
    name = content.get("algorithm") or content["law"]  # as the first version wrote it
    return typed(ControllerState(name, _memory(content["memory"]), decisions))


def _memory(content: dict[str, Any]) -> ControllerMemory:
    marks = {
        name: typed(Counters(**content[name]))
        for name in ("begun", "judged", "last")
        if content[name]
    }
    pairs = {
        name: tuple(tuple(pair) for pair in content[name])
        for name in ("written", "contested", "spent")
    }
    resident = tuple(content["resident"])
    known = {one.name: content[one.name] for one in fields(ControllerMemory) if one.name in content}
    phase, guests = Phase(content["phase"]), frozenset(content["guests"])
    plain = {"phase": phase, "guests": guests, "resident": resident}
    return typed(ControllerMemory(**{**known, **marks, **pairs, **plain}))
