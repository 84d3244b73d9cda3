# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuned_virt.kernel import cpuset


@pytest.mark.parametrize(
    ("text", "numbers"), [("", set()), ("0", {0}), ("0-3,8", {0, 1, 2, 3, 8}), ("5,1\n", {1, 5})]
)
def test_lists(text: str, numbers: set[int]) -> None:
    assert cpuset.parse(text) == numbers


@given(st.sets(st.integers(0, 2000)))
def test_there_and_back(numbers: set[int]) -> None:
    assert cpuset.parse(cpuset.text(numbers)) == numbers


def test_the_shortest() -> None:
    assert cpuset.text([8, 2, 1, 0, 3]) == "0-3,8"


@pytest.mark.parametrize("text", ["-1", "1-", "3-1", "a", "1;2", "1--2", "٣", "9999999999"])
def test_anything_else_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="'"):
        cpuset.parse(text)
