# SPDX-License-Identifier: GPL-2.0-or-later
"""What hosts have together, in memory that does not grow with them."""

from __future__ import annotations

from typing import Any

from tests.schemas import valid
from tuned_virt.cli import json_output
from tuned_virt.cli.fleet_summary import WORST, FleetSummary


def audited(*found: tuple[str, str], suppressed: bool = False) -> dict[str, Any]:
    return {
        "host_name": "",
        "findings": [
            {"severity": severity, "rule": rule, "suppressed": {} if suppressed else None}
            for severity, rule in found
        ],
    }


def test_worst_first() -> None:
    summary = FleetSummary("audit")
    summary.add("calm", audited(), 0)
    summary.add("many", audited(*[("warning", "b")] * 5, ("info", "c")), 1)
    summary.add("broken", audited(("error", "a")), 1)
    summary.add("lost", {"error": "lost: No such file"}, 2)
    content = valid(json_output.document("fleet", summary.content()))
    assert summary.code == 2
    assert [one["host"] for one in content["worst"]] == ["broken", "many"]
    assert content["hosts"] == {"done": 3, "failed": 1}
    assert content["failed"] == [{"host": "lost", "error": "lost: No such file"}]
    assert [(one["rule"], one["findings"], one["hosts"]) for one in content["rules"]] == [
        *(("a", 1, 1), ("b", 5, 1), ("c", 1, 1))
    ]


def test_what_is_suppressed_does_not_count() -> None:
    summary = FleetSummary("audit")
    accepted = audited(("error", "a"))
    accepted["findings"][0]["suppressed"] = {"where": "x", "reason": "y"}
    summary.add("one", accepted, 0)
    assert (summary.content()["rules"], summary.content()["worst"]) == ([], [])


def test_plans_by_how_guests_are_placed() -> None:
    summary = FleetSummary("plan")
    placements = [
        {"kind": "shared", "ungranted": ""},
        {"kind": "shared", "ungranted": "policy=dedicated"},
        {"kind": "unplaced", "ungranted": ""},
    ]
    summary.add("full", {"host_name": "node7", "placements": placements}, 1)
    assert list(summary.lines()) == [
        "hosts     1 planned, 0 could not be read",
        "guests    3: 2 shared, 1 unplaced",
        "",
        "host          errors  warnings  infos  unplaced  ungranted",
        "node7 (full)       0         0      0         1          1",
    ]


def test_it_does_not_grow() -> None:
    summary = FleetSummary("audit")
    for number in range(10 * WORST):
        summary.add(f"bad:{number}", {"error": "x"}, 2)
        summary.add(f"host:{number}", audited(*[("error", "a")] * (number + 1)), 1)
    content = summary.content()
    assert len(content["failed"]) == len(content["worst"]) == WORST
    assert content["worst"][0]["errors"] == 10 * WORST
    assert f"failed    and {9 * WORST} more" in list(summary.lines())
