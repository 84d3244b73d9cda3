# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt guests`: what it shows of guests, at 80 columns, as JSON, and again and again."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace

import pytest

from tuned_virt.cli import guests
from tuned_virt.cli.guests import GuestRow

ROWS = [
    GuestRow(
        *("web1-production", "u1", 11, "shared", (0,), {0: "0-15,32-47", 1: "0-15,32-47"}),
        *("tuned-virt", "fits on node 0", 99.5, {0: 4096, 1: 20}, (), 12.3),
    ),
    GuestRow(
        *("db", "u2", 12, "dedicated", (0, 1), {0: "4", 1: "5", 2: "7"}),
        *("tuned-virt", "x", 100.0, {0: 65536, 1: 65536}, ("vCPU 0 on 0-15, not 4",), 0.0),
    ),
    GuestRow(
        "free", "u3", 13, "unplaced", (), {0: "0-63"}, "nobody", "is new", None, {3: 2}, (), None
    ),
]

SHOWN = """\
guest            kind       node  vCPUs on    local %  MiB by node      delay ms
web1-production  shared     0     0-15,32-47     99.5  0:4096 1:20          12.3
db               dedicated  0-1   4-5,7         100.0  0:65536 1:65536       0.0
free             unplaced   -     0-63              -  3:2                     -

web1-production: tuned-virt: fits on node 0
db: drift: vCPU 0 on 0-15, not 4
free: nobody: is new
"""


@pytest.fixture(autouse=True)
def looks(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """What each look was given of the look before."""
    given: list[dict[str, int]] = []

    def gather(_fs: object, before: dict[str, int], now: dict[str, int]) -> list[GuestRow]:
        given.append(dict(before))
        now["thread"] = len(given)
        return ROWS

    monkeypatch.setattr(guests, "gather", gather)
    monkeypatch.setattr(guests, "_last_look", lambda: {"thread": 0})
    monkeypatch.setattr(guests, "_keep_look", lambda now: None)
    return given


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    guests.add_arguments(parser)
    return guests.run(parser.parse_args(arguments))


def test_the_table_fits_eighty_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run() == 1, "one has drifted"
    lines = capsys.readouterr().out.splitlines()
    assert "".join(f"{line.rstrip()}\n" for line in lines) == SHOWN


def test_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 1
    found = json.loads(capsys.readouterr().out)["guests"]
    assert [one["guest"] for one in found] == ["web1-production", "db", "free"]
    assert found[0]["by_node"] == {"0": 4096, "1": 20}
    assert found[1]["drift"] == ["vCPU 0 on 0-15, not 4"]
    assert found[2]["delay_ms"] is None


def test_no_guest(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(guests, "gather", lambda *_: [])
    assert run() == 0
    assert capsys.readouterr().out == "no guest is running\n"


def test_watching_compares_with_the_last_look_until_it_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, looks: list[dict[str, int]]
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    assert run("--watch", "0.5") == 0
    assert slept == [0.5] * 3
    assert looks == [{"thread": 0}, {"thread": 1}, {"thread": 2}]


@pytest.mark.parametrize("text", ["0", "-1", "soon", "99999"])
def test_a_bad_pace_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--watch", text)
    assert "--watch" in capsys.readouterr().err


def test_what_is_not_granted_is_said_and_is_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = replace(ROWS[0], why="no node has 4 free CPUs", ungranted="policy=dedicated")
    monkeypatch.setattr(guests, "gather", lambda *_: [row])
    assert run() == 1
    said = "web1-production: tuned-virt: policy=dedicated is not granted: no node has 4 free CPUs"
    assert said in capsys.readouterr().out
    assert run("--json") == 1
    assert json.loads(capsys.readouterr().out)["guests"][0]["ungranted"] == "policy=dedicated"
