# SPDX-License-Identifier: GPL-2.0-or-later
"""What every law of KSM shares: changes towards what it wants, and what somebody else changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tuned_virt.plugins.ksm.decision import (
    INSIST,
    ControllerMemory,
    Phase,
    Sample,
    changes_towards,
    mib,
    mib_of,
)

WANTED = {"pages_to_scan": "64", "sleep_millisecs": "10", "run": "1"}
FOUND = {"run": "0", "pages_to_scan": "100", "sleep_millisecs": "10"}


def sample(**settings: str) -> Sample:
    return Sample(100.0, 1 << 24, 1 << 23, {**FOUND, **settings})


def later(now: float, scan: str) -> Sample:
    return replace(sample(pages_to_scan=scan, run="1"), now=now)


def test_a_phase_that_version_0_1_wrote_is_known() -> None:
    assert Phase("hands off") is Phase.YIELDED
    with pytest.raises(ValueError, match="'no phase' is not a valid Phase"):
        Phase("no phase")


def test_only_what_differs_is_changed_in_the_order_of_writing() -> None:
    changes, memory, noted = changes_towards(WANTED, sample(), ControllerMemory())
    assert list(changes.items()) == [("pages_to_scan", "64"), ("run", "1")]
    assert dict(memory.written) == WANTED
    assert (memory.contested, memory.insisted, noted) == ((), None, [])


def test_what_is_not_wanted_is_left_and_remembered() -> None:
    before = ControllerMemory(written=(("pages_to_scan", "100"), ("run", "1")))
    changes, memory, _ = changes_towards({"run": "0"}, sample(run="1"), before)
    assert changes == {"run": "0"}
    assert dict(memory.written) == {"pages_to_scan": "100", "run": "0"}
    assert changes_towards({"other": "1"}, sample(), ControllerMemory())[0] == {}


def test_what_somebody_else_changes_is_said_once_and_set_again() -> None:
    written = ControllerMemory(written=tuple(WANTED.items()))
    changes, memory, noted = changes_towards(WANTED, later(100.0, "7"), written)
    assert changes == {"pages_to_scan": "64"}
    assert noted == ["pages_to_scan is '7', not '64': changed by another program"]
    assert (memory.contested, memory.insisted) == ((("pages_to_scan", "7"),), 100.0)
    changes, memory, noted = changes_towards(WANTED, later(100 + INSIST - 1, "7"), memory)
    assert (changes, noted, memory.insisted) == ({}, [], 100.0)
    changes, memory, noted = changes_towards(WANTED, later(100 + INSIST, "7"), memory)
    assert (changes, noted) == ({"pages_to_scan": "64"}, [])
    assert memory.insisted == 100 + INSIST
    _, memory, noted = changes_towards(WANTED, later(200.0, "8"), memory)
    assert noted == ["pages_to_scan is '8', not '64': changed by another program"]
    _, memory, _ = changes_towards(WANTED, later(201.0, "64"), memory)
    assert memory.contested == ()


def test_own_changes_wait_for_nobody() -> None:
    """Only what is contested does."""
    memory = ControllerMemory(written=(("pages_to_scan", "64"), ("run", "1")), insisted=90.0)
    theirs = sample(pages_to_scan="7", run="1")
    changes, after, _ = changes_towards({**WANTED, "sleep_millisecs": "20"}, theirs, memory)
    assert changes == {"sleep_millisecs": "20"}
    assert after.insisted == 90.0


def test_a_setting_that_is_not_told_is_not_anybodys_change() -> None:
    bare = Sample(1.0, 1, 1, {})
    changes, memory, noted = changes_towards(
        {"run": "1"}, bare, ControllerMemory(written=(("run", "1"),))
    )
    assert (changes, memory.contested, noted) == ({"run": "1"}, (), [])


def test_amounts_in_words() -> None:
    assert mib(1536) == "2 MiB"
    assert mib(1024 * 1000) == "1000 MiB"
    assert mib_of(256) == "1 MiB"
    assert mib_of(256 * 4096) == "4096 MiB"
