# SPDX-License-Identifier: GPL-2.0-or-later
"""Amounts of memory as libvirt writes them."""

from __future__ import annotations

from xml.etree.ElementTree import Element, fromstring

import pytest

from tuned_virt.model import memory_units
from tuned_virt.model.xml import ElementError

MEMORY = Element("memory")


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("007", 7), (" 12\n", 12), ("9" * 18, 10**18 - 1)]
)
def test_whole_numbers(text: str, value: int) -> None:
    assert memory_units.number(text) == value


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.5", "1e3", "٣", "9" * 19, "1 2"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not a whole number from 0") as caught:
        memory_units.number(text)
    assert str(caught.value) == f"'{text}' is not a whole number from 0"


def test_a_long_text_is_shown_in_part() -> None:
    for length, shown in ((40, "x" * 40), (41, "x" * 40 + "…")):
        with pytest.raises(ValueError, match="x") as caught:
            memory_units.number("x" * length)
        assert str(caught.value) == f"'{shown}' is not a whole number from 0"


@pytest.mark.parametrize(
    ("text", "unit", "kib"),
    [
        ("1024", "b", 1),
        ("1025", "bytes", 2),
        ("1", "B", 1),
        ("0", "b", 0),
        ("1000", "KB", 977),
        ("1", "k", 1),
        ("1", "KiB", 1),
        ("1", "MB", 977),
        ("1", "M", 1024),
        ("3", "mib", 3072),
        ("1", "GB", 976563),
        ("1", "g", 1 << 20),
        ("1", "TB", 976562500),
        ("1", "TiB", 1 << 30),
        ("1", "PB", 976562500000),
        ("1", "p", 1 << 40),
        ("16", "PiB", 1 << 44),
    ],
)
def test_libvirts_units(text: str, unit: str, kib: int) -> None:
    assert memory_units.kib(MEMORY, text, unit) == kib


@pytest.mark.parametrize(
    ("text", "unit", "why"),
    [
        ("1", "", "<memory>: unit '' is unknown"),
        ("1", "furlong", "<memory>: unit 'furlong' is unknown"),
        ("1", "x" * 41, f"<memory>: unit '{'x' * 40}' is unknown"),
        ("x", "KiB", "<memory>: 'x' is not a whole number from 0"),
        ("17", "PiB", "<memory>: 17 PiB is more than 16 PiB"),
        ("1", "EiB", "<memory>: 1 EiB is more than 16 PiB"),
        (str((1 << 44) + 1), "KiB", f"<memory>: {(1 << 44) + 1} KiB is more than 16 PiB"),
    ],
)
def test_what_is_no_amount(text: str, unit: str, why: str) -> None:
    with pytest.raises(ElementError) as caught:
        memory_units.kib(MEMORY, text, unit)
    assert (str(caught.value), caught.value.element) == (why, MEMORY)


def test_amounts_in_elements() -> None:
    assert memory_units.element_kib(fromstring("<memory>7</memory>")) == 7
    assert memory_units.element_kib(fromstring("<memory unit='MiB'>7</memory>")) == 7168
    empty = fromstring("<memory/>")
    with pytest.raises(ElementError, match="<memory>: '' is not a whole number from 0") as caught:
        memory_units.element_kib(empty)
    assert caught.value.element is empty
