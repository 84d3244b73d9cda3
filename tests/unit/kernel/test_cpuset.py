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


@pytest.mark.parametrize(
    ("text", "numbers"), [("", set()), ("  (null)\n", set()), ("(null)", set()), ("0-1\n", {0, 1})]
)
def test_a_list_that_the_kernel_may_not_have(text: str, numbers: set[int]) -> None:
    assert cpuset.parse_or_null(text) == numbers
    with pytest.raises(ValueError, match="'null'"):
        cpuset.parse_or_null("null")


@given(st.sets(st.integers(0, 2000)))
def test_there_and_back(numbers: set[int]) -> None:
    assert cpuset.parse(cpuset.text(numbers)) == numbers


def test_the_shortest() -> None:
    assert cpuset.text([8, 2, 1, 0, 3]) == "0-3,8"


@pytest.mark.parametrize("text", ["-1", "1-", "3-1", "a", "1;2", "1--2", "٣", "9999999999"])
def test_anything_else_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="'"):
        cpuset.parse(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a", "'a' is not a number or a range of numbers"),
        ("x" * 40, f"'{'x' * 40}' is not a number or a range of numbers"),
        ("x" * 41, f"'{'x' * 40}…' is not a number or a range of numbers"),
        ("3-1", "'3-1' runs backwards"),
        ("65536", "'65536' goes beyond 65535"),
        ("0-65536", "'0-65536' goes beyond 65535"),
        ("0" * 131073, f"'{'0' * 40}…' is longer than 131072 characters"),
    ],
)
def test_what_is_wrong_is_said(text: str, why: str) -> None:
    with pytest.raises(ValueError, match="'") as caught:
        cpuset.parse(text)
    assert str(caught.value) == why


def test_the_largest_numbers_and_lists() -> None:
    assert cpuset.parse("65535") == {65535}
    assert cpuset.parse("0-65535") == cpuset.parse("0-65535,5-9") == frozenset(range(65536))
    assert cpuset.parse("0-65535,65535") == frozenset(range(65536))
    assert cpuset.parse("7," * 65536) == {7}
    assert cpuset.parse("1-65535,1-9") == frozenset(range(1, 65536))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("5-7,^6", {5, 7}),
        ("^6,5-7", {5, 6, 7}),
        ("0-9,^2-4,3", {0, 1, 3, 5, 6, 7, 8, 9}),
        ("4,5", {4, 5}),
        ("4 , ^4", set()),
        ("1,2,^9", {1, 2}),
    ],
)
def test_lists_as_libvirt_excludes(text: str, numbers: set[int]) -> None:
    assert cpuset.parse_excluding(text) == numbers


def test_what_is_excluded_must_be_a_number() -> None:
    for wrong in ("^", "1,^x", "^^1"):
        with pytest.raises(ValueError, match="is not a number or a range of numbers"):
            cpuset.parse_excluding(wrong)


@pytest.mark.parametrize(
    ("text", "most"),
    [("", 0), ("7", 1), ("0-3", 4), ("0-3,8", 5), ("3-1", 1), ("x", 0), ("^1-2 5", 3), ("٣", 0),
     ("0-999999999", 10**9)],
)  # fmt: skip
def test_how_many_numbers_a_list_may_have(text: str, most: int) -> None:
    assert cpuset.size(text) == most


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", set()),
        ("0", set()),
        ("f", {0, 1, 2, 3}),
        ("A", {1, 3}),
        ("00000001,0000000f\n", {0, 1, 2, 3, 32}),
        ("1" + "0" * 16, {64}),
        ("8" + "0" * 16383, {65535}),
    ],
)
def test_masks(text: str, numbers: set[int]) -> None:
    assert cpuset.parse_mask(text) == numbers


def test_what_is_no_mask() -> None:
    for wrong, shown in (
        ("g", "g"),
        ("0x1", "0x1"),
        ("-1", "-1"),
        ("z" * 41, "z" * 40 + "…"),
        ("0" * 16385, "0" * 40 + "…"),
    ):
        with pytest.raises(ValueError, match="is not a CPU mask") as caught:
            cpuset.parse_mask(wrong)
        assert str(caught.value) == f"'{shown}' is not a CPU mask"


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([5], "5"), ([1, 0], "0-1"), ([0, 2], "0,2"), ([3, 3, 4], "3-4")],
)
def test_as_text(numbers: list[int], text: str) -> None:
    assert cpuset.text(numbers) == text
