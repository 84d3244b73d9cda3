# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt disable` returns to what was active before, by files and with a running TuneD."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cli.test_activation import put, tree
from tuned_virt import cli
from tuned_virt.cli import activation, disable, restore
from tuned_virt.cli.activation import RECOMMENDED, Machine
from tuned_virt.cli.common import CouldNot
from tuned_virt.core import active_profile
from tuned_virt.core.active_profile import ActiveProfile
from tuned_virt.kernel import systemd, timeouts

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may disable a profile")

PROFILES = ("balanced", "virtual-host", "virtual-host-plus", "virtual-guest-plus", "site")
HOST = ActiveProfile(("virtual-host",))
PLUS = ActiveProfile(("virtual-host-plus",))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path, "etc/tuned/tuned-main.conf", "")
    for name in PROFILES:
        put(tmp_path, f"usr/lib/tuned/{name}/tuned.conf", "[main]\n")
    return tmp_path


@pytest.fixture
def machine(root: Path) -> Machine:
    return Machine(root)


def set_active(machine: Machine, active: ActiveProfile, previous: ActiveProfile | None) -> None:
    root = Path(machine.system.root)
    put(root, active_profile.NAMES, " ".join(active.names) + "\n")
    put(root, active_profile.MODE, active_profile.mode(active) + "\n")
    if active.post_loaded:
        put(root, active_profile.POST_LOADED, f"{active.post_loaded}\n")
    if previous is not None:
        record = active_profile.record_file(machine.system)
        record.write(active_profile.content(previous))


# --- by files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("active", "previous", "then"),
    [
        (PLUS, HOST, HOST),
        (PLUS, ActiveProfile(("virtual-host",), True), ActiveProfile(("virtual-host",), True)),
        (PLUS, ActiveProfile(automatic=True), ActiveProfile(automatic=True)),
        (PLUS, ActiveProfile(), ActiveProfile()),
        (
            ActiveProfile(("virtual-host-plus", "site")),
            HOST,
            ActiveProfile(("virtual-host", "site")),
        ),
        (
            ActiveProfile(("balanced",), False, "virtual-host-plus"),
            None,
            ActiveProfile(("balanced",)),
        ),
        (
            ActiveProfile(("virtual-host-plus",), False, "site"),
            HOST,
            ActiveProfile(("virtual-host",), False, "site"),
        ),
    ],
)
def test_files_say_what_was_before(
    active: ActiveProfile,
    previous: ActiveProfile | None,
    then: ActiveProfile,
    machine: Machine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_active(machine, active, previous)
    root = machine.system.root
    assert cli.main(["disable", "--root", root]) == 0
    assert machine.active() == then
    assert machine.previous() is None, "the record goes"
    assert "note:" not in capsys.readouterr().out
    before = tree(Path(root))
    assert cli.main(["disable", "--root", root, "--json"]) == 0
    assert tree(Path(root)) == before
    said = json.loads(capsys.readouterr().out)
    assert (said["changed"], said["off"]) == (False, [])


def test_in_json(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    set_active(machine, PLUS, HOST)
    assert cli.main(["disable", "--json", "--root", machine.system.root]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said.pop("kind"), bool(said.pop("version"))) == ("disable", True)
    assert said == {
        "changed": True,
        "off": ["virtual-host-plus"],
        "profiles": ["virtual-host"],
        "mode": "manual",
        "notes": [],
    }


@pytest.mark.parametrize(
    ("previous", "said"),
    [
        (None, "the profile that was active before is not known"),
        (ActiveProfile(("gone",)), "there is no profile 'gone' in "),
        (ActiveProfile(("child",)), "'child', which was active before, uses tuned-virt-plus now"),
    ],
)
def test_a_profile_that_cannot_be_returned_to_is_said(
    previous: ActiveProfile | None,
    said: str,
    machine: Machine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put(Path(machine.system.root), "usr/lib/tuned/child/tuned.conf", "[main]\n[ksm]\n")
    set_active(machine, PLUS, previous)
    assert cli.main(["disable", "--root", machine.system.root]) == 0
    assert machine.active() == ActiveProfile()
    shown = capsys.readouterr().out
    assert shown.startswith("virtual-host-plus: off; active now: no profile\nnote: ")
    assert said in shown


def test_automatic_mode_that_would_choose_ours_again(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    put(Path(machine.system.root), RECOMMENDED, "")
    set_active(machine, PLUS, ActiveProfile(("virtual-host",), automatic=True))
    assert cli.main(["disable", "--root", machine.system.root]) == 0
    assert machine.active() == HOST
    assert "note: automatic mode would choose a profile of tuned-virt" in capsys.readouterr().out


def test_a_profile_that_tuned_ppd_sets_again(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(machine.system.root)
    put(root, "etc/tuned/ppd.conf", "[profiles]\n# x=site\nbalanced=balanced virtual-host-plus\n")
    set_active(machine, PLUS, HOST)
    assert cli.main(["disable", "--root", machine.system.root]) == 0
    assert "note: /etc/tuned/ppd.conf names virtual-host-plus, which" in capsys.readouterr().out
    assert machine.ppd_names() == {"balanced", "virtual-host-plus"}


def test_enable_remembers_and_disable_returns(root: Path) -> None:
    unit = "[Install]\nWantedBy=multi-user.target\n"
    put(root, "usr/lib/systemd/system/tuned.service", unit)
    put(root, "etc/tuned/active_profile", "balanced\n")
    put(root, "etc/tuned/profile_mode", "auto\n")
    before = {"etc/tuned/active_profile": "balanced\n", "etc/tuned/profile_mode": "auto\n"}
    for name in ("virtual-host-plus", "virtual-guest-plus"):
        assert cli.main(["enable", name, "--root", str(root)]) == 0
    assert cli.main(["disable", "--root", str(root)]) == 0
    assert before.items() <= tree(root).items()


# --- with a running TuneD ------------------------------------------------------------------------


class FakeDaemon:
    """TuneD as the command calls it: profiles in memory, then in its files."""

    def __init__(self, machine: Machine, active: ActiveProfile, recommended: str = "") -> None:
        self.machine, self.now, self.choice = machine, active, recommended
        self.calls: list[str] = []

    def active(self) -> ActiveProfile:
        return self.now

    def recommended(self) -> str:
        return self.choice

    def _becomes(self, call: str, now: ActiveProfile) -> None:
        self.calls.append(call)
        self.now = now
        self.machine.select(now)

    def switch(self, names: str) -> None:
        now = ActiveProfile(tuple(names.split()), False, self.now.post_loaded)
        self._becomes(f"switch {names}", now)

    def automatic(self) -> None:
        now = ActiveProfile(tuple(self.choice.split()), True, self.now.post_loaded)
        self._becomes("automatic", now)

    def off(self) -> bool:
        self._becomes("off", ActiveProfile())
        return True


@pytest.fixture
def live(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeDaemon]:
    """Has `disable` find a TuneD with these profiles active, and nothing to put back."""

    def start(
        active: ActiveProfile, previous: ActiveProfile | None = None, recommended: str = ""
    ) -> FakeDaemon:
        set_active(machine, active, previous)
        daemon = FakeDaemon(machine, active, recommended)
        monkeypatch.setattr(disable, "_daemon", lambda: daemon)
        return daemon

    monkeypatch.setattr(disable, "Machine", lambda _: machine)
    monkeypatch.setattr(systemd, "in_chroot", lambda: False)
    monkeypatch.setattr(restore, "held_needlessly", lambda _: False)
    monkeypatch.setattr(restore, "put_back", lambda *_: 0)
    return start


@pytest.mark.parametrize(
    ("active", "previous", "calls"),
    [
        (PLUS, HOST, ["switch virtual-host"]),
        (PLUS, ActiveProfile(), ["off"]),
        (PLUS, None, ["off"]),
        (PLUS, ActiveProfile(("virtual-host",), True), ["automatic"]),
        (
            ActiveProfile(("virtual-host-plus", "site")),
            HOST,
            ["switch virtual-host site"],
        ),
        (ActiveProfile(("virtual-host-plus", "site")), None, ["switch site"]),
        (
            ActiveProfile(("balanced",), False, "virtual-host-plus"),
            None,
            ["off", "switch balanced"],
        ),
        (ActiveProfile((), False, "virtual-host-plus"), None, ["off"]),
        (ActiveProfile(("virtual-host-plus",), False, "site"), HOST, ["switch virtual-host"]),
        (ActiveProfile(("virtual-host-plus",), False, "site"), ActiveProfile(), ["switch "]),
    ],
)
def test_a_running_tuned_is_switched(
    active: ActiveProfile,
    previous: ActiveProfile | None,
    calls: list[str],
    live: Callable[..., FakeDaemon],
    machine: Machine,
) -> None:
    daemon = live(active, previous, recommended="balanced")
    assert cli.main(["disable"]) == 0
    assert daemon.calls == calls
    assert machine.active() == daemon.now
    assert not any(map(machine.profiles.uses, daemon.now.all))
    assert machine.previous() is None


def test_automatic_mode_is_not_returned_to_where_it_chooses_ours(
    live: Callable[..., FakeDaemon], capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = live(PLUS, ActiveProfile(("virtual-host",), True), recommended="virtual-host-plus")
    assert cli.main(["disable"]) == 0
    assert daemon.calls == ["switch virtual-host"]
    assert "remove tuned-virt-plus-recommend first" in capsys.readouterr().out


def test_what_tuned_holds_counts_where_its_files_could_not_be_written(
    live: Callable[..., FakeDaemon], machine: Machine
) -> None:
    """A read-only /etc: the files still name the profile before."""
    daemon = live(PLUS, HOST)
    put(Path(machine.system.root), active_profile.NAMES, "balanced\n")
    assert cli.main(["disable"]) == 0
    assert daemon.calls == ["switch balanced"]


def test_a_profile_that_tuned_could_not_load_is_found_in_the_files(
    live: Callable[..., FakeDaemon], machine: Machine
) -> None:
    daemon = live(PLUS, HOST)
    daemon.now = ActiveProfile()
    assert cli.main(["disable"]) == 0
    assert daemon.calls == ["switch virtual-host"]


def test_another_packages_profile_is_left(live: Callable[..., FakeDaemon]) -> None:
    daemon = live(PLUS, HOST)
    assert cli.main(["disable", "virtual-guest-plus"]) == 0
    assert daemon.calls == []


def test_without_a_daemon_it_says_how_to_apply(
    live: Callable[..., FakeDaemon],
    monkeypatch: pytest.MonkeyPatch,
    machine: Machine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    live(PLUS, HOST)
    monkeypatch.setattr(disable, "_daemon", lambda: None)
    assert cli.main(["disable"]) == 0
    assert machine.active() == HOST
    assert "note: TuneD is not running: systemctl restart tuned" in capsys.readouterr().out


def test_a_tuned_that_does_not_turn_off(
    live: Callable[..., FakeDaemon],
    monkeypatch: pytest.MonkeyPatch,
    machine: Machine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    daemon = live(PLUS)
    monkeypatch.setattr(daemon, "off", lambda: False)
    assert cli.main(["disable"]) == 2
    assert "TuneD could not turn its profile off" in capsys.readouterr().err
    assert machine.active() == PLUS


def test_it_waits_until_tuned_has_let_go(
    live: Callable[..., FakeDaemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package's removal takes the plugins away right after it."""
    held = [True, True, False, False]
    daemon = live(PLUS, HOST)

    def put_back(*_: object) -> int:
        assert (daemon.calls, held) == (["switch virtual-host"], [False])
        return 0

    monkeypatch.setattr(restore, "held_needlessly", lambda _: held.pop(0))
    monkeypatch.setattr(restore, "put_back", put_back)
    assert cli.main(["disable"]) == 0
    assert held == []


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["virtual-host-plus"], (HOST, [])),
        (["virtual-host-plus", "site"], (ActiveProfile(("virtual-host", "site")), [])),
        (["balanced"], None),
        ([], None),
    ],
)
def test_what_status_says_of_it(
    names: list[str], found: object, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_active(machine, PLUS, HOST)
    monkeypatch.setattr(activation, "Machine", lambda: machine)
    assert activation.disabling(names) == found


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("rollback=not_on_exit\n", "rollback=not_on_exit: TuneD leaves its settings until"),
        ("", "TuneD has not restored everything yet: see tuned-virt status"),
    ],
)
def test_what_tuned_still_holds_is_said(
    text: str,
    note: str,
    live: Callable[..., FakeDaemon],
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    live(PLUS, ActiveProfile())
    put(Path(machine.system.root), "etc/tuned/tuned-main.conf", text)
    monkeypatch.setattr(timeouts, "RELEASED", 0.1)
    monkeypatch.setattr(restore, "held_needlessly", lambda _: True)
    assert cli.main(["disable"]) == 1
    assert f"note: {note}" in capsys.readouterr().out


def test_a_root_without_tuned(tmp_path: Path) -> None:
    with pytest.raises(CouldNot, match="TuneD is not installed"):
        Machine(tmp_path)
