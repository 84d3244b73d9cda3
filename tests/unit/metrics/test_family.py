# SPDX-License-Identifier: GPL-2.0-or-later
"""Families and samples: not there is no series, zero is 0."""

from __future__ import annotations

import pytest

from tuned_virt.metrics.family import FamilyType, family

POOL = family("pool_bytes", "A pool.", "node", "size")


def test_the_type_is_in_the_name() -> None:
    assert family("scans_total", "Scans.").type is FamilyType.COUNTER
    assert POOL.type is FamilyType.GAUGE
    assert POOL.name == "tuned_virt_pool_bytes"


def test_not_there_is_no_series_and_zero_is_zero() -> None:
    one = family("one", "One.")
    assert one.of(None).values == {}
    assert one.of(0).values == {(): 0}
    assert POOL.by({("0", "2M"): 0, ("1", "2M"): None}).values == {("0", "2M"): 0}
    assert family("x_info", "X.", "of").info([("a",), ("b",)]).values == {("a",): 1, ("b",): 1}


def test_a_sample_has_all_labels() -> None:
    with pytest.raises(ValueError, match="tuned_virt_pool_bytes has the labels node, size"):
        POOL.by({("0",): 1})
