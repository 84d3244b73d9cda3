# SPDX-License-Identifier: GPL-2.0-or-later
"""`numad` as it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.numad.test_machine import place, root
from tuned_virt.kernel.files import KernelFS
from tuned_virt.numad import command

__all__ = ["root"]


@pytest.fixture
def own(tmp_path: Path) -> str:
    """The folder of its state, which is not there at first."""
    return str(tmp_path / "own")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["-w", "2:512"], 0, "0\n"),
        (["-w2:512"], 0, "0\n"),
        (["-w", "2"], 0, "0\n"),
        (["-w", "6:2000"], 0, "0-1\n"),
        (["-w", "0:512"], 1, ""),
        (["-w", "x"], 1, ""),
        (["-w"], 1, ""),
        (["-i", "15"], 1, ""),
        ([], 1, ""),
    ],
)
def test_answers(
    arguments: list[str],
    status: int,
    said: str,
    root: Path,
    own: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.run(arguments, KernelFS(str(root)), own, 1.0) == status
    out, err = capsys.readouterr()
    assert out == said
    assert bool(err) is bool(status)


def test_one_after_the_other_fills_the_nodes(
    root: Path,
    own: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for _ in range(3):
        command.run(["-w", "2:700"], KernelFS(str(root)), own, 1.0)
    assert capsys.readouterr().out.split() == ["0", "1", "1"]


def test_what_goes_wrong_gives_the_neutral_answer_and_one_line(
    root: Path,
    own: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (root / "sys/devices/system/cpu/isolated").write_text("0-7\n")
    assert command.run(["-w", "2:512"], KernelFS(str(root)), own, 1.0) == 0
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("0-2\n", 1)
    assert "all nodes are advised" in err
    (root / "sys/devices/system/cpu/isolated").write_text("\n")
    blocked = str(root / "sys/devices/system/cpu/isolated")
    assert command.run(["-w", "2:512"], KernelFS(str(root)), blocked, 1.0) == 0
    out, err = capsys.readouterr()
    assert out == "1\n"
    assert err.startswith("numad: earlier advice is not counted: ")


def test_guests_that_are_placed_count_and_a_record_that_cannot_be_used_is_said(
    root: Path,
    own: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place(Path(own), {"vcpus": {"0": "0-3", "1": "0-3", "2": "0-3"}})
    assert command.run(["-w", "2:512"], KernelFS(str(root)), own, 1.0) == 0
    assert capsys.readouterr() == ("1\n", "")
    place(Path(own), {"vcpus": None})
    assert command.run(["-w", "2:512"], KernelFS(str(root)), own, 900.0) == 0
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("0\n", 1)
    assert err.startswith(f"numad: guests are not counted: {own}/vm_pinning.json: is damaged")


def test_version_and_help(root: Path, own: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["-V"], KernelFS(str(root)), own, 1.0) == 0
    assert command.run(["-h"], KernelFS(str(root)), own, 1.0) == 0
    assert "is no daemon" in capsys.readouterr().out
