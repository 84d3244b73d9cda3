# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt guests`: exit codes, JSON, delays between two moments, and its screen."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from typing import Any

import pytest

from tests.schemas import valid
from tests.unit.cli.test_guest_text import ROWS
from tuned_virt.cli import guest_rows, guests, vcpu_waits
from tuned_virt.cli.guest_rows import GuestRow
from tuned_virt.cli.vcpu_waits import VcpuWaits


class Looks:
    """What is seen at each look, and how long was slept in between."""

    def __init__(self) -> None:
        self.rows: list[GuestRow] = ROWS
        self.slept: list[float] = []
        self.compared: list[tuple[float, float]] = []
        self.moment = 0.0

    def waits(self, _fs: object, _watched: object) -> VcpuWaits:
        self.moment += 1
        return VcpuWaits(self.moment, {1: {(2, "3"): 4}} if self.rows else {})

    def made(self, _fs: object, _guests: object, before: VcpuWaits, now: VcpuWaits) -> Any:
        self.compared.append((before.when, now.when))
        return self.rows

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) == 4:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    made = Looks()
    monkeypatch.setattr(guest_rows, "find", lambda fs: [])
    monkeypatch.setattr(vcpu_waits, "read", made.waits)
    monkeypatch.setattr(guest_rows, "rows", made.made)
    monkeypatch.setattr(time, "sleep", made.sleep)
    return made


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    guests.add_arguments(parser)
    return guests.run(parser.parse_args(arguments))


def test_one_call_measures_for_a_second(looks: Looks) -> None:
    assert run() == 1, "one has drifted"
    assert (looks.slept, looks.compared) == ([1.0], [(1.0, 2.0)])


def test_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 1
    found = valid(json.loads(capsys.readouterr().out))["guests"]
    assert [one["guest"] for one in found] == ["db", "web1-production", "free"]
    assert found[0]["problem"] == "drift"
    assert found[0]["mend"] == ["virsh vcpupin db 0 4 --live"]
    assert found[1]["by_node"] == {"0": 4096, "1": 20}
    assert found[2]["delay_ms"] is None


def test_no_guest(looks: Looks, capsys: pytest.CaptureFixture[str]) -> None:
    looks.rows = []
    assert run() == 0
    assert capsys.readouterr().out == "no guest is running\n"
    assert looks.slept == [0.0], "there is nothing to measure"


@pytest.mark.parametrize("terminal", [True, False])
def test_watching_redraws_with_the_time_until_it_is_interrupted(
    terminal: bool,
    looks: Looks,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "30")
    assert run("--watch", "0.5") == 0
    assert looks.slept == [0.5] * 4, "the first is measured for as long"
    assert looks.compared == [(1.0, 2.0), (2.0, 3.0), (3.0, 4.0)]
    text = capsys.readouterr().out
    assert text.count("every 0.5 s") == 3
    assert text.count(f"tuned-virt guests, {time.strftime('%Y-')}") == 3
    assert text.count("\x1b[H") == (3 if terminal else 0)


@pytest.mark.parametrize("text", ["0", "-1", "soon", "99999"])
def test_a_bad_pace_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--watch", text)
    assert "--watch" in capsys.readouterr().err


def test_what_is_not_granted_is_exit_1(looks: Looks, capsys: pytest.CaptureFixture[str]) -> None:
    looks.rows = [replace(ROWS[1], ungranted="policy=dedicated")]
    assert run() == 1
    capsys.readouterr()
    assert run("--json") == 1
    assert json.loads(capsys.readouterr().out)["guests"][0]["ungranted"] == "policy=dedicated"
    looks.rows = [ROWS[1]]
    assert run() == 0
