# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests on a machine in use: its TuneD lets go, the kernel is as booted, and all comes back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import machine_in_use
from tests.kernel_snapshot import KSM, active_word, snapshot
from tests.machine_in_use import BOOTED, known_state
from tests.sandbox import Sandbox, wait_for

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.fixture
def in_use(
    tuned: Callable[..., Sandbox], version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Sandbox:
    """A TuneD that takes the part of the machine's own."""
    t = tuned(version)
    monkeypatch.setattr(machine_in_use, "BUS", t.root / "run/dbus/system_bus_socket")
    monkeypatch.setattr(machine_in_use, "ORIGINALS", t.root / "run/tuned-virt")
    monkeypatch.setattr(machine_in_use, "STATE", tmp_path / "state.json")
    return t


def as_booted() -> bool:
    now = snapshot()
    return all(active_word(now[path]) == BOOTED[path] for path in BOOTED if path in now)


@pytest.mark.parametrize("profile", ["virtual-host-plus", "virtual-guest-plus"])
def test_an_active_profile_is_let_go_and_applied_again(in_use: Sandbox, profile: str) -> None:
    in_use.switch(profile)
    assert in_use.verify(), in_use.verify_lines
    before = in_use.snapshot()
    said: list[str] = []
    with known_state(said.append):
        assert as_booted()
        assert not in_use.call("is_running")
    assert in_use.verify(), in_use.verify_lines
    assert in_use.active() == profile
    assert in_use.snapshot() == before
    assert [profile in line for line in said] == [True, True]


def test_an_administrators_values_come_back(in_use: Sandbox) -> None:
    own = {f"{KSM}/sleep_millisecs": "33", f"{KSM}/run": "1", str(THP): "never"}
    own["/proc/sys/vm/dirty_bytes"] = "400000000"
    for path, value in own.items():
        Path(path).write_text(value)
    before = snapshot()
    with known_state(print):
        assert as_booted()
    assert snapshot() == before


def test_what_killed_tests_have_left_is_put_back_by_the_next(in_use: Sandbox) -> None:
    in_use.switch("virtual-host-plus")
    before = in_use.snapshot()
    killed = os.fork()
    if killed == 0:
        session = known_state(print)  # held, or it would end here
        session.__enter__()
        os._exit(9)
    os.waitpid(killed, 0)
    assert not in_use.call("is_running")
    said: list[str] = []
    with known_state(said.append):
        assert as_booted()
    assert "killed" in said[0]
    wait_for("the profile again", in_use.verify)
    assert in_use.snapshot() == before


def test_an_interrupted_session_puts_back(in_use: Sandbox) -> None:
    in_use.switch("virtual-guest-plus")
    before = in_use.snapshot()
    with pytest.raises(KeyboardInterrupt), known_state(print):
        os.kill(os.getpid(), machine_in_use.ENDS[0])
    assert in_use.verify(), in_use.verify_lines
    assert in_use.snapshot() == before
