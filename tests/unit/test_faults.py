# SPDX-License-Identifier: GPL-2.0-or-later
"""Which calls `make check-faults` has fail, and what its table says."""

from __future__ import annotations

import random

from tests.faults.injected import _general
from tests.faults.plan import ERRORS, Fault, Outcome, Table, distinct, faults

READ, WRITE = "read open(/sys/x) from kernel.files.read", "write write(/sys/x) from kernel.files"


def test_the_first_and_last_call_of_each_kind_fail() -> None:
    trace = [READ, WRITE, READ, READ]
    assert distinct(trace, every=False) == [(READ, 1), (READ, 3), (WRITE, 1)]
    assert distinct(trace, every=True) == [(READ, 1), (WRITE, 1), (READ, 2), (READ, 3)]


def test_paths_that_differ_by_a_number_are_of_one_kind() -> None:
    trace = [f"read open(/sys/cpu{number}/x) from y" for number in range(9)]
    assert distinct(trace, every=False) == [(trace[0], 1), (trace[-1], 1)]
    assert _general("/proc/17/task/18/stat") == "/proc/N/task/N/stat"
    assert _general("/run/x.json.1700000000123456789") == "/run/x.json.N"


def test_errors_come_by_turns_or_all() -> None:
    calls = [(READ, number) for number in range(1, 17)]
    by_turns = faults("off", calls, random.Random(1), False)
    assert [fault.nth for fault in by_turns] == list(range(1, 17))
    assert {fault.error for fault in by_turns} == set(ERRORS)
    assert faults("off", calls, random.Random(1), False) == by_turns, "by the seed"
    assert len(faults("off", calls, random.Random(1), True)) == 16 * len(ERRORS)


def test_the_table_counts_what_went_wrong() -> None:
    table = Table()
    table.made("2.20", "off", [READ, WRITE, READ])
    table.add("2.20", Outcome(Fault("off", READ, 1, "EIO"), fired=True))
    table.add("2.20", Outcome(Fault("off", READ, 2, "EIO"), fired=True, named=True, kept="x"))
    table.add("2.20", Outcome(Fault("off", WRITE, 1, "EIO")))
    lines = table.text().splitlines()
    assert lines[2] == "| 2.20 | off | read | 2 | 2 | 0 | 1 | 0 | 0 | 1 | 0 |"
    assert lines[3] == "| 2.20 | off | write | 1 | 0 | 1 | 0 | 0 | 0 | 0 | 0 |"
    assert [one.bad for one in table.bad] == ["kept: x"]
