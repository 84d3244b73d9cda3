# SPDX-License-Identifier: GPL-2.0-or-later
"""What `make mutate` says of mutants that were tried, and of those that were not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from scripts import mutate

FILE = Path("tuned_virt/kernel/cpuset.py")
SOURCE = """\
def x_parse__mutmut_orig(text):
    return text.split(",")
def x_parse__mutmut_1(text):
    return text.split(";")
def x_parse__mutmut_2(text):
    return None
"""
CHANGES = {"1": 'return text.split(";")', "2": "return None"}
NOTICED, UNNOTICED, INTERRUPTED, UNTRIED = 1, 0, 2, None


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout's build/mutate, and its list of mutants that no test can notice."""
    monkeypatch.setattr(mutate, "ROOT", tmp_path)
    monkeypatch.setattr(mutate, "WORK", tmp_path)
    monkeypatch.setattr(mutate, "SURVIVORS", tmp_path / "survivors.tsv")
    monkeypatch.setattr(mutate, "REVIEWED", tmp_path / "mutants.tsv")
    explain()
    return tmp_path


def explain(*numbers: str) -> None:
    """Give these mutants a reason."""
    rows = [
        ("kernel/cpuset", "parse", 'return text.split(",")', CHANGES[number], "a reason")
        for number in numbers
    ]
    lines = ["module\tfunction\tbefore\tafter\treason", *("\t".join(row) for row in rows)]
    mutate.REVIEWED.write_text("\n".join(lines) + "\n")


def found(one: int | None, two: int | None) -> mutate.Score:
    """The score where mutmut has left these exit codes."""
    names = ("x_parse__mutmut_orig", "x_parse__mutmut_1", "x_parse__mutmut_2")
    spans = {name: [line, line + 1] for name, line in zip(names, (1, 3, 5))}
    codes = {
        f"tuned_virt.kernel.cpuset.{names[1]}": one,
        f"tuned_virt.kernel.cpuset.{names[2]}": two,
    }
    kept = mutate.WORK / "mutants" / FILE
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(SOURCE)
    kept.with_name("cpuset.py.meta").write_text(json.dumps({"exit_code_by_key": codes}))
    kept.with_name("cpuset.py.spans").write_text(json.dumps({"spans": spans}))
    return mutate.score(FILE)


def test_a_survivor_is_told_by_its_change() -> None:
    [survivor] = found(NOTICED, UNNOTICED).survivors
    assert survivor.row == ("kernel/cpuset", "parse", 'return text.split(",")', "return None")


@pytest.mark.parametrize("untried", [UNTRIED, INTERRUPTED])
def test_the_share_is_of_those_that_were_tried(untried: int | None) -> None:
    score = found(NOTICED, untried)
    assert (score.tried, score.killed, score.percent) == (1, 1, 100)
    assert not score.enough
    assert found(NOTICED, NOTICED).enough


def test_not_tried_is_not_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    explain("1", "2")
    assert not mutate.report({"kernel/cpuset": found(UNNOTICED, UNTRIED)})
    said = capsys.readouterr().out
    assert "1 not tried" in said
    assert "is noticed" not in said


def test_a_reason_for_what_is_noticed_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    explain("1")
    assert mutate.report({"kernel/cpuset": found(NOTICED, NOTICED)})
    [line] = [line for line in capsys.readouterr().out.splitlines() if "is noticed" in line]
    assert CHANGES["1"] in line


def test_survivors_without_a_reason_are_written_down() -> None:
    explain("1")
    assert not mutate.report({"kernel/cpuset": found(UNNOTICED, UNNOTICED)})
    [_, line] = mutate.SURVIVORS.read_text().splitlines()
    assert line.endswith(CHANGES["2"])


def test_a_module_that_was_never_tried_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert not mutate.report({"model/pins": mutate.score(Path("tuned_virt/model/pins.py"))})
    assert "all not tried" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spans", "chosen", "kept"),
    [
        (1, True, True),
        (-1, True, False),
        (None, True, False),
        (1, False, False),
        (-1, False, True),
        (None, False, True),
    ],
    ids=[
        "mutated and to be tried",
        "only copied since, or written in part",
        "only copied",
        "mutated, and not to be tried now",
        "copied since",
        "copied",
    ],
)
def test_what_was_not_mutated_to_its_end_is_made_anew(
    folder: Path, spans: int | None, chosen: bool, kept: bool
) -> None:
    """The spans of a file's mutants are written after it."""
    found(NOTICED, UNNOTICED)
    source, copy = folder / FILE, folder / "mutants" / FILE
    source.parent.mkdir(parents=True)
    source.touch()
    times = copy.with_name("cpuset.py.spans")
    if spans is None:
        times.unlink()
    else:
        os.utime(times, (0, copy.stat().st_mtime + spans))
    mutate.forget([FILE] if chosen else [])
    assert copy.exists() is kept


def test_survivors_are_tried_again_and_files_that_are_gone_go(folder: Path) -> None:
    found(NOTICED, UNNOTICED)
    source, copy = folder / FILE, folder / "mutants" / FILE
    source.parent.mkdir(parents=True)
    source.touch()
    old_test = folder / "mutants/tests/unit/test_of_old.py"
    old_test.parent.mkdir(parents=True)
    old_test.touch()
    mutate.forget([FILE])
    codes = json.loads(copy.with_name("cpuset.py.meta").read_text())["exit_code_by_key"]
    assert list(codes.values()) == [NOTICED, UNTRIED]
    assert not old_test.exists()
    source.unlink()
    mutate.forget([FILE])
    assert not copy.exists()


def test_survivors_are_tried_again_where_other_modules_were_tried_since(folder: Path) -> None:
    found(NOTICED, UNNOTICED)
    source, copy = folder / FILE, folder / "mutants" / FILE
    source.parent.mkdir(parents=True)
    source.touch()
    copy.with_name("cpuset.py.spans").unlink()
    mutate.forget([FILE])
    codes = json.loads(copy.with_name("cpuset.py.meta").read_text())["exit_code_by_key"]
    assert (list(codes.values()), copy.exists()) == ([NOTICED, UNTRIED], False)
