# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuned_virt.core.options import (
    BadOptions,
    Modifier,
    Number,
    OneOf,
    OptionError,
    WantedValue,
    is_yes,
    no_such,
)
from tuned_virt.core.options import given as said

SCAN = Number(1, 1000, "pages")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("7", WantedValue(7)),
        (">7", WantedValue(7, Modifier.AT_LEAST)),
        ("< 1000", WantedValue(1000, Modifier.AT_MOST)),
    ],
)
def test_numbers(text: str, wanted: WantedValue) -> None:
    assert SCAN.parse("pages_to_scan", text) == wanted


@pytest.mark.parametrize("text", ["0", "-1", "1001", "1.5", "many", "", "7 8", "٧", "9" * 5000])
def test_bad_numbers_name_option_value_and_what_is_valid(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        SCAN.parse("pages_to_scan", text)
    assert str(caught.value) == (
        f"option 'pages_to_scan': '{text}' is not valid: a whole number from 1 to 1000 (pages)"
    )


@given(st.integers(1, 1000), st.integers(0, 2000))
def test_modifiers_are_relative_to_the_original(value: int, original: int) -> None:
    assert WantedValue(value).against(str(original)) == str(value)
    assert WantedValue(value, Modifier.AT_LEAST).against(str(original)) == str(max(value, original))
    assert WantedValue(value, Modifier.AT_MOST).against(str(original)) == str(min(value, original))


def test_choice() -> None:
    assert OneOf(("a", "b")).parse("x", "b") == "b"
    with pytest.raises(OptionError, match="'c' is not valid: one of a, b"):
        OneOf(("a", "b")).parse("x", "c")


@pytest.mark.parametrize(
    ("text", "yes"), [("1", True), ("Yes", True), ("off", False), ("0", False)]
)
def test_switches(text: str, yes: bool) -> None:
    assert is_yes("observe", text) is yes


def test_a_bad_switch_is_an_error() -> None:
    with pytest.raises(OptionError, match="option 'observe': 'maybe' is not valid: 1 or 0"):
        is_yes("observe", "maybe")


def test_empty_options_say_nothing() -> None:
    assert said({"a": None, "b": "", "c": "  ", "d": " x "}) == {"d": "x"}


MANY = [f"pages_{number}" for number in range(40)]


@pytest.mark.parametrize(
    ("option", "known", "valid"),
    [
        ("merge_accross_nodes", ["run", "merge_across_nodes"], "did you mean merge_across_nodes?"),
        ("merge_accross_nodes", ["run", "merge_across_nodes"], "All are in manual(7)"),
        ("colour", ["run", "mode"], "use one of mode, run"),
        ("colour", MANY, "all are in manual(7)"),
    ],
)
def test_an_option_that_there_is_not(option: str, known: list[str], valid: str) -> None:
    error = no_such(option, "1", known, "manual(7)")
    assert str(error).startswith(f"option '{option}': '1' is not valid: there is no such option; ")
    assert valid in str(error)
    assert len(str(error)) < 200


def test_errors_together() -> None:
    errors = [OptionError("a", "1", "x"), OptionError("b", "2", "y")]
    assert str(BadOptions(errors)) == (
        "option 'a': '1' is not valid: x; option 'b': '2' is not valid: y"
    )


def test_as_many_options_as_are_listed() -> None:
    names = [f"name{chr(97 + number) * 9}" for number in range(16)]
    few = no_such("zzz", "", names[:15], "man x").valid
    assert few == f"there is no such option; use one of {', '.join(sorted(names[:15]))}"
    assert no_such("zzz", "", names, "man x").valid == ("there is no such option; all are in man x")
    assert no_such("pages_3M", "", ["pages_2M", "pages_1G"], "man x").valid == (
        "there is no such option; did you mean pages_2M or pages_1G? All are in man x"
    )
