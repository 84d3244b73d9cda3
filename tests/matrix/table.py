# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of a run: a row for each cell, a column for each step, in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.matrix.cells import Cell

STEPS = (
    *("boot", "switch", "verify", "drift", "mended", "other", "off", "kill -9", "reboot", "off"),
)
"""The columns; tests/matrix/inside.py reports one after the other."""


@dataclass(frozen=True)
class Step:
    """What one step took, in seconds, and why it failed; empty where it did not."""

    name: str
    seconds: float
    failure: str = ""


AHEAD_SECONDS = 30.0
"""A machine's clock that has gone so much further than this one's has jumped."""


@dataclass(frozen=True)
class Result:
    """How far a cell came; `broken` says why its machine ended early."""

    cell: Cell
    steps: Sequence[Step] = field(default_factory=tuple)
    seconds: float = 0
    broken: str = ""

    @property
    def passed(self) -> bool:
        """Whether all steps were taken, and none failed."""
        return not self.broken and len(self.steps) == len(STEPS) and not self.failures

    @property
    def failures(self) -> list[str]:
        """Why it has not passed, one line or more each."""
        found = [f"{step.name}: {step.failure}" for step in self.steps if step.failure]
        return [*found, *([self.broken] if self.broken else [])]


def jumped(result: Result) -> bool:
    """Whether the machine's clock ran ahead: emulated CPUs whose TSCs differ, when a thread changes
    its CPU. What waits for an answer then gives up before there was time for one."""
    return sum(step.seconds for step in result.steps) > result.seconds + AHEAD_SECONDS


def shown(results: Sequence[Result]) -> str:
    """The table, then remarks on its cells; a failed step has a !, one not taken a -."""
    rows = [["cell", *STEPS, "all", ""]]
    rows += [_row(result) for result in results]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
    remarks = [f"{one.cell}: {one.cell.remark}" for one in results if one.cell.remark]
    passed = sum(result.passed for result in results)
    ending = f"{passed} of {len(results)} cells passed; seconds, ! failed, - not reached"
    return "\n".join([*lines, "", *remarks, ending]) + "\n"


def _row(result: Result) -> list[str]:
    taken = [f"{step.seconds:.0f}{'!' if step.failure else ''}" for step in result.steps]
    missing = ["-"] * (len(STEPS) - len(taken))
    verdict = "passed" if result.passed else "FAILED"
    return [str(result.cell), *taken, *missing, f"{result.seconds:.0f}", verdict]
