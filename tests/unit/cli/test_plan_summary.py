# SPDX-License-Identifier: GPL-2.0-or-later
"""What plan says of all guests together, and of those that lose cores."""

from __future__ import annotations

import pytest

from tests.unit.machines import guest, machine
from tuned_virt.cli import plan_summary
from tuned_virt.model.guest import Guest, HugePages, UserPins
from tuned_virt.model.topology import Host
from tuned_virt.placement import Placement, parse, plan

HOST = machine(2, cores=16, gib=256)
"""2 x 16 cores with two threads."""


def placements(host: Host, guests: list[Guest], **options: str) -> tuple[Placement, ...]:
    return plan(host, guests, parse(options), {}).placements


def test_how_many_are_placed_and_why_others_are_not() -> None:
    crowd = [guest(f"g{n:02}", 4, 4) for n in range(30)]
    assert plan_summary.placed(placements(HOST, crowd)) == "30 of 30 guests are placed"
    assert plan_summary.placed(placements(HOST, crowd, overcommit="1")) == (
        "16 of 30 guests are placed, 14 are not (14 for lack of CPUs)"
    )
    others = [
        guest("mine", 1, owned=UserPins(vcpus={0: frozenset({0})})),
        guest("out", 1, wishes={"policy": "none"}),
        guest("huge", 1, huge_pages=(HugePages(2048),)),
        guest("vast", 1, 9999),
        guest("odd", 1, wishes={"smt": "maybe"}),
        guest("fits", 1),
    ]
    assert plan_summary.placed(placements(HOST, others, overcommit="1")) == (
        "1 of 6 guests is placed, 1 placed by owners or other managers, 1 left as they are, 3 are"
        " not (1 for lack of huge pages, 1 for lack of memory, 1 for other reasons)"
    )


def test_who_loses_cores_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    wide = [guest("a", 32), guest("b", 4)]
    plan_summary.show(HOST, wide, placements(HOST, wide, overcommit="2"))
    assert capsys.readouterr().out == (
        "\n2 of 2 guests are placed.\n\n"
        "Cores that busy guests get, of those they would get if nobody were pinned:\n"
        "guest  vCPUs  when it alone is busy  when all are\n"
        "a         32  20.8 of 32.0 (65 %)    20.8 of 29.5 (70 %)\n"
    )
    plan_summary.show(HOST, wide[1:], placements(HOST, wide[1:]))
    assert "Cores" not in capsys.readouterr().out
    plan_summary.show(HOST, [], ())
    assert capsys.readouterr().out == ""


def test_cores_for_programs() -> None:
    [one] = plan_summary.content(HOST, [guest("a", 32)], placements(HOST, [guest("a", 32)]))
    assert one == {
        "guest": "a",
        "uuid": "uuid-a",
        "alone": 32.0,
        "alone_unpinned": 32.0,
        "busy": 32.0,
        "busy_unpinned": 32.0,
    }
