# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from tuned_virt.cli.file_changes import all_or_nothing, differing


def test_only_what_differs(tmp_path: Path) -> None:
    same, other, new = (tmp_path / name for name in ("same", "other", "new"))
    same.write_text("a\n")
    other.write_text("a\n")
    assert differing({same: "a\n", other: "b\n", new: ""}) == {other: "b\n", new: ""}


def test_all(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("before\n")
    with all_or_nothing({one: "1\n", two: "2\n"}):
        pass
    assert (one.read_text(), two.read_text()) == ("1\n", "2\n")


def test_nothing_where_one_file_cannot_be_written(tmp_path: Path) -> None:
    one, two, three = tmp_path / "one", tmp_path / "two", tmp_path / "gone/three"
    one.write_bytes(b"\xff before\n")
    with (
        pytest.raises(FileNotFoundError),
        all_or_nothing({one: "1\n", two: "2\n", three: "3\n"}),
    ):
        raise AssertionError("entered")
    assert one.read_bytes() == b"\xff before\n"
    assert sorted(tmp_path.iterdir()) == [one]


def test_nothing_where_the_rest_fails(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("before\n")
    with pytest.raises(ValueError, match="x"), all_or_nothing({one: "1\n", two: "2\n"}):
        raise ValueError("x")
    assert one.read_text() == "before\n"
    assert not two.exists()
