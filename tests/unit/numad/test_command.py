# SPDX-License-Identifier: GPL-2.0-or-later
"""`numad` as it is called."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.unit.numad.test_machine import MEMINFO, root, write
from tests.unit.numad.test_running_guests import run
from tuned_virt.kernel import affinity
from tuned_virt.kernel.files import KernelFS
from tuned_virt.numad import command
from tuned_virt.numad.advice_record import AdviceRecord

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
        command.run(["-w", "1:700"], KernelFS(str(root)), own, 1.0)
    assert capsys.readouterr().out.split() == ["0", "1", "1"]


def test_what_goes_wrong_gives_the_neutral_answer_and_one_line(
    root: Path,
    own: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (root / "sys/devices/system/node/has_memory").write_text("2\n")
    assert command.run(["-w", "2:512"], KernelFS(str(root)), own, 1.0) == 0
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("0-2\n", 1)
    assert "all nodes are advised" in err
    (root / "sys/devices/system/node/has_memory").write_text("0-2\n")
    (root / "sys/devices/system/cpu/isolated").write_text("\n")
    blocked = str(root / "sys/devices/system/cpu/isolated")
    assert command.run(["-w", "2:512"], KernelFS(str(root)), blocked, 1.0) == 0
    out, err = capsys.readouterr()
    assert out == "1\n"
    assert err.startswith("numad: earlier advice is not counted: ")


def test_guests_that_run_count_and_those_that_cannot_be_counted_are_said(
    root: Path,
    own: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever has placed them."""
    run(root, "web", [os.getpid()] * 3)
    monkeypatch.setattr(affinity, "masks", lambda threads: ((one, 0xF) for one in threads))
    assert command.run(["-w", "2:512"], KernelFS(str(root)), own, 1.0) == 0
    assert capsys.readouterr() == ("1\n", "")
    (root / "run/libvirt/qemu/odd.xml").mkdir()
    assert command.run(["-w", "2:512"], KernelFS(str(root)), own, 900.0) == 0
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("1\n", 1)
    assert err.startswith("numad: not all guests that run are counted: cannot read /run/libvirt/")


TEN = 10

CALLER = """
import sys
from tuned_virt.kernel.files import KernelFS
from tuned_virt.numad import command
print("ready", flush=True)
sys.stdin.read()
sys.exit(command.run(["-w", "4:512"], KernelFS(sys.argv[1]), sys.argv[2], 1.0))
"""


@pytest.mark.large
def test_callers_at_once_are_spread_and_each_is_counted(tmp_path: Path, own: str) -> None:
    """Ten processes, ten nodes that are alike: ten answers. Ten more: each node once more."""
    folder = "/sys/devices/system/node"
    for number in range(TEN):
        write(tmp_path, f"{folder}/node{number}/cpulist", f"{number * 16}-{number * 16 + 15}\n")
        text = MEMINFO.format(n=number, free=8 << 20)
        write(tmp_path, f"{folder}/node{number}/meminfo", text)
    for _ in range(2):
        assert sorted(_at_once(str(tmp_path), own)) == [str(number) for number in range(TEN)]
    lately = AdviceRecord(own).read(1.0).advised
    assert Counter(node for one in lately for node in one.nodes) == dict.fromkeys(range(TEN), 2)


def _at_once(root: str, own: str) -> list[str]:
    """What callers are told that wait for each other before they ask."""
    pipe = subprocess.PIPE
    call = [sys.executable, "-c", CALLER, root, own]
    callers = [subprocess.Popen(call, stdin=pipe, stdout=pipe, text=True) for _ in range(TEN)]
    for one in callers:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in callers:
        assert one.stdin is not None
        one.stdin.close()
    answers = []
    for one in callers:
        with one:
            assert one.stdout is not None
            answers.append(one.stdout.read().strip())
        assert one.returncode == 0
    return answers


def test_version_and_help(root: Path, own: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["-V"], KernelFS(str(root)), own, 1.0) == 0
    assert command.run(["-h"], KernelFS(str(root)), own, 1.0) == 0
    assert "is no daemon" in capsys.readouterr().out
