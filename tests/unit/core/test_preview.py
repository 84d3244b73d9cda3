# SPDX-License-Identifier: GPL-2.0-or-later
"""What a preview says of values, and what TuneD's modifiers come to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuned_virt.core.preview import (
    Knowledge,
    PreviewedValue,
    Reading,
    SwitchPreview,
    after_modifier,
    known,
    original,
    same,
    unit,
    unknown,
)


def applied(asked: str, before: int) -> int:
    """What TuneD's Plugin._process_assignment_modifiers makes of an original."""
    if asked[0] == ">":
        return max(int(asked[1:]), before)
    return min(int(asked[1:]), before) if asked[0] == "<" else int(asked)


SMALL = st.integers(0, 6)
ASKED = st.builds("{}{}".format, st.sampled_from("<>"), SMALL)


@given(wanted=ASKED, asked=ASKED | SMALL.map(str), before=SMALL)
def test_a_modifier_comes_to_what_the_switch_comes_to(wanted: str, asked: str, before: int) -> None:
    """Whatever the original was; where several are possible and differ, nothing is claimed."""
    current = applied(asked, before)
    found = after_modifier(wanted, asked, str(current))
    possible = {applied(wanted, one) for one in range(-1, 8) if applied(asked, one) == current}
    if found is None:
        assert len(possible) > 1
    else:
        assert possible == {int(found)}


@given(asked=ASKED | SMALL.map(str), before=SMALL)
def test_an_original_is_told_only_where_it_is_certain(asked: str, before: int) -> None:
    found = original(asked, str(applied(asked, before)))
    assert found in (None, before)


def test_a_value_that_somebody_changed_since_is_not_taken_for_tuneds() -> None:
    assert after_modifier(">4096", ">4096", "128") is None
    assert after_modifier(">4096", ">4096", "4096") == "4096"
    assert after_modifier(">2048", "10", "5000") is None
    assert original(">4096", "words") is None
    assert after_modifier(">many", ">4096", "4096") is None


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("4096\t87380\t6291456", "4096 87380  6291456", True),
        ("010", "10", True),
        ("0", "", False),
        ("1", "0", False),
        ("a b", "a", False),
        ("always", "always", True),
    ],
)
def test_two_texts_are_one_value(one: str, other: str, equal: bool) -> None:
    assert same(one, other) is equal


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("vm.dirty_ratio", "% of available memory"),
        ("vm.dirty_bytes", "bytes"),
        ("readahead", "KiB"),
        ("force_latency", "µs"),
        ("sleep_millisecs", "ms"),
        ("vm.swappiness", ""),
        ("min_perf_pct", "%"),
    ],
)
def test_a_setting_has_its_unit(setting: str, wanted: str) -> None:
    assert unit(setting) == wanted


def value(setting: str, before: Reading, after: Reading, device: str = "") -> PreviewedValue:
    return PreviewedValue("disk", "disk", setting, "", before, after, device=device)


def test_what_is_not_known_is_neither_absent_nor_zero_nor_unchanged() -> None:
    hidden = Reading(Knowledge.UNREADABLE, why="only root can read it")
    some = [
        value("a", known("1"), known("1")),
        value("b", hidden, known("0")),
        value("c", known("0"), unknown("only TuneD knows")),
        value("d", Reading(Knowledge.ABSENT), known("0")),
        value("e", Reading(Knowledge.ABSENT), Reading(Knowledge.ABSENT)),
    ]
    found = SwitchPreview(some)
    assert [one.setting for one in found.changes] == ["b", "c", "d"]
    assert found.unchanged == 2
    assert [str(one.before) for one in found.changes] == ["cannot read", "0", "absent"]
    assert str(found.changes[1].after) == "not known"
    assert str(known("")) == "(empty)"
    assert str(known("always [madvise] never\n")) == "madvise"


def test_changes_come_in_the_order_of_people() -> None:
    devices = ["sda10", "sda2", "sdb"]
    some = [value("readahead", known("1"), known("2"), one) for one in devices]
    assert [one.device for one in SwitchPreview(some).changes] == ["sda2", "sda10", "sdb"]
