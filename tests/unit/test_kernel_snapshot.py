# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests put back on a machine in use."""

from __future__ import annotations

import pytest

from tests.kernel_snapshot import KSM, active_word, differing

SCAN = f"{KSM}/pages_to_scan"
ADVISOR = f"{KSM}/advisor_mode"
THP = "/sys/kernel/mm/transparent_hugepage/enabled"


@pytest.mark.parametrize(
    ("text", "word"),
    [("always [madvise] never", "madvise"), ("60", "60"), ("", ""), ("[none]", "none")],
)
def test_the_chosen_word(text: str, word: str) -> None:
    assert active_word(text) == word


def test_what_differs_comes_with_the_word_to_write() -> None:
    before = {THP: "always madvise [never]", SCAN: "100", "/gone": "1"}
    now = {THP: "always [madvise] never", SCAN: "100", "/new": "2"}
    assert differing(before, now) == {THP: "never"}
    assert differing(before, before) == {}


@pytest.mark.parametrize(
    ("mode", "found"), [("[none] scan-time", {SCAN: "500"}), ("none [scan-time]", {})]
)
def test_what_the_advisor_sets_is_its_own(mode: str, found: dict[str, str]) -> None:
    assert differing({SCAN: "500", ADVISOR: mode}, {SCAN: "100", ADVISOR: mode}) == found
