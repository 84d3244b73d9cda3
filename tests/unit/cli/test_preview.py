# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt preview: what it prints, as text and as JSON, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.tuned_api.preview.profiles import NOW, PATH, SETTING, Profiles
from tuned_virt.cli import daemon, main, preview
from tuned_virt.cli.common import CouldNot
from tuned_virt.core.originals import Originals
from tuned_virt.kernel import systemd

SET = f"[sysctl]\n{SETTING}="


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profiles:
    monkeypatch.setattr(preview, "_active", lambda: ([], ""))
    return Profiles(tmp_path, monkeypatch)


def test_for_programs(profiles: Profiles, capsys: pytest.CaptureFixture[str]) -> None:
    file = profiles.write("mine", f"{SET}7\n[net]\nx=1\n")
    assert main(["preview", "mine", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert list(content) == [
        *("version", "kind", "active", "profiles", "changes", "unchanged", "guests", "refused"),
        *("not_known", "notes"),
    ]
    assert content["changes"] == [
        {
            **{"plugin": "sysctl", "section": "sysctl", "setting": SETTING, "device": None},
            **{"path": PATH, "before": NOW, "before_is": "known", "after": "7"},
            **{"after_is": "known", "unit": None, "file": file, "line": 4},
            **{"text": f"{SETTING}=7", "why": None},
        }
    ]
    assert content["not_known"][0]["plugin"] == "net"


def test_what_is_not_known_has_no_value(
    profiles: Profiles, capsys: pytest.CaptureFixture[str]
) -> None:
    profiles.write("mine", f"{SET}${{f:exec:/usr/bin/id}}\n")
    assert main(["preview", "mine", "--json"]) == 0
    [change] = json.loads(capsys.readouterr().out)["changes"]
    assert (change["after"], change["after_is"]) == (None, "not known")
    assert "«/usr/bin/id»" in change["why"]


def test_for_people_one_line_a_row(profiles: Profiles, capsys: pytest.CaptureFixture[str]) -> None:
    file = profiles.write("mine", f"{SET}7\n")
    assert main(["preview", "mine"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["Now:  no profile", "Then: mine", ""]
    assert lines[3:5] == ["sysctl", f"  {SETTING}  {NOW} → 7  {file}:4"]
    assert lines[-2:] == [
        "1 value would change, 0 stay as they are.",
        "Nothing has been changed. To switch: tuned-adm profile mine",
    ]


def test_what_would_be_refused_is_an_exit_code(
    profiles: Profiles, capsys: pytest.CaptureFixture[str]
) -> None:
    profiles.write("mine", "[ksm]\nrun=7\n")
    assert main(["preview", "mine"]) == 1
    assert "Would be refused\n  ksm: option 'run': '7' is not valid" in capsys.readouterr().out
    assert main(["preview", "nothing"]) == 2
    assert "TuneD would refuse the switch: Cannot find profile" in capsys.readouterr().err


def test_without_a_name_by_role(profiles: Profiles, monkeypatch: pytest.MonkeyPatch) -> None:
    profiles.write("virtual-guest-plus", f"{SET}7\n")
    monkeypatch.setattr(systemd, "role", lambda _fs: "guest")
    assert main(["preview"]) == 0


@pytest.mark.parametrize(
    ("error", "said"),
    [(daemon.NotRunning("x"), "is not running"), (CouldNot("no dbus"), "was not asked (no dbus)")],
)
def test_how_the_active_profile_is_known(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def refuse() -> daemon.Daemon:
        raise error

    monkeypatch.setattr(preview, "Daemon", refuse)
    active, note = preview._active()
    assert said in note
    assert active == [] or not isinstance(error, daemon.NotRunning)


def test_originals_that_cannot_be_read_end_it_with_nothing_set_aside(
    profiles: Profiles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any other reader sets a damaged file aside, which is a change."""
    folder = profiles.folder / "run"
    folder.mkdir()
    (folder / "baseline.json").write_text("{ no json")
    monkeypatch.setattr(preview, "Originals", lambda: Originals(folder))
    profiles.write("mine", f"{SET}7\n")
    assert main(["preview", "mine"]) == 2
    assert "baseline.json" in capsys.readouterr().err
    assert [file.name for file in folder.iterdir()] == ["baseline.json"]
