# SPDX-License-Identifier: GPL-2.0-or-later
"""Which calls fail in which round, and the table of what came of it: values alone."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

ERRORS = ("EIO", "EINVAL", "EBUSY", "ENOMEM", "EACCES", "EMFILE", "ENOSPC", "hang")
PHASES = ("apply", "off")


@dataclass(frozen=True)
class Fault:
    """One call of one phase, the `nth` of its label, and what it fails with."""

    phase: str
    label: str
    nth: int
    error: str

    @property
    def kind(self) -> str:
        """What it does: read, write or libvirt."""
        return self.label.partition(" ")[0]

    def __str__(self) -> str:
        return f"{self.phase}: {self.error} at {self.label} (number {self.nth})"


@dataclass
class Outcome:
    """What came of one fault; empty texts are good.

    fired   whether the call was made
    named   whether verify failed; a fault that was mended, or did no harm, is not named
    silent  what is not as asked although verify passes
    inexact what is not as before after the off
    kept    what is still kept although all is back
    broken  what else must not be: no answer, an internal error
    """

    fault: Fault
    fired: bool = False
    named: bool = False
    silent: str = ""
    inexact: str = ""
    kept: str = ""
    broken: str = ""

    @property
    def bad(self) -> str:
        """What is wrong, in words, or ""."""
        parts = {name: getattr(self, name) for name in ("silent", "inexact", "kept", "broken")}
        return "; ".join(f"{name}: {text}" for name, text in parts.items() if text)


def distinct(trace: Iterable[str], every: bool) -> list[tuple[str, int]]:
    """The calls of a trace, as label and number: each of them, or the first and the last of a
    label, where labels that differ only by a number in their path are one."""
    calls: list[tuple[str, int]] = []
    count: Counter[str] = Counter()
    kinds: dict[str, list[tuple[str, int]]] = {}
    for label in trace:
        count[label] += 1
        calls.append((label, count[label]))
        kinds.setdefault(re.sub(r"\d+", "N", label), []).append(calls[-1])
    if every:
        return calls
    return [one for some in kinds.values() for one in dict.fromkeys([some[0], some[-1]])]


def faults(
    phase: str, calls: Sequence[tuple[str, int]], chance: random.Random, every_error: bool
) -> list[Fault]:
    """Faults of a phase's calls, with every error or one each, by turns from a random first."""
    if every_error:
        return [Fault(phase, *call, error) for call in calls for error in ERRORS]
    first = chance.randrange(len(ERRORS))
    turns = (ERRORS[(first + number) % len(ERRORS)] for number in range(len(calls)))
    return [Fault(phase, *call, error) for call, error in zip(calls, turns)]


@dataclass
class Table:
    """Counts by generation, phase and kind of call."""

    rows: dict[tuple[str, str, str], list[Outcome]] = field(default_factory=dict)
    calls: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def made(self, version: str, phase: str, trace: Iterable[str]) -> None:
        """Count the calls that a phase makes without any fault."""
        for label in trace:
            row = (version, phase, label.partition(" ")[0])
            self.calls[row] = self.calls.get(row, 0) + 1

    def add(self, version: str, outcome: Outcome) -> None:
        """One more round."""
        row = (version, outcome.fault.phase, outcome.fault.kind)
        self.rows.setdefault(row, []).append(outcome)

    @property
    def bad(self) -> list[Outcome]:
        """Rounds in which something is wrong."""
        return [one for some in self.rows.values() for one in some if one.bad]

    def text(self) -> str:
        """As Markdown."""
        titles = ["TuneD", "phase", "calls", "made", "failed", "not reached", "named by verify"]
        titles += ["silent", "not exact", "still kept", "broken"]
        lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
        for row, some in sorted(self.rows.items()):
            fired = [one for one in some if one.fired]
            cells = [*row, self.calls.get(row, 0), len(fired), len(some) - len(fired)]
            cells += [sum(one.named for one in fired)]
            cells += [
                sum(bool(getattr(one, name)) for one in fired)
                for name in ("silent", "inexact", "kept", "broken")
            ]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        return "\n".join(lines)
