# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.failing import fail
from tuned_virt.core import active_profile
from tuned_virt.core.active_profile import ActiveProfile, returns_to
from tuned_virt.core.installed_profiles import InstalledProfiles
from tuned_virt.core.system_root import SystemRoot

VH = ActiveProfile(("virtual-host",))
AUTO = ActiveProfile(("virtual-host",), automatic=True)
OFF = {"plus", "more"}


def active(text: str, post_loaded: str = "") -> ActiveProfile:
    return ActiveProfile(tuple(text.split()), post_loaded=post_loaded)


@pytest.mark.parametrize(
    ("now", "previous", "then"),
    [
        (active("plus"), VH, VH),
        (active("plus"), AUTO, AUTO),
        (active("plus"), ActiveProfile(), ActiveProfile()),
        (active("plus"), None, ActiveProfile()),
        (active("plus site"), VH, active("virtual-host site")),
        (active("site plus"), VH, active("site virtual-host")),
        (active("plus site"), AUTO, active("virtual-host site")),
        (active("plus site"), active("virtual-host site"), active("virtual-host site")),
        (active("plus"), active("virtual-host site"), active("virtual-host site")),
        (active("plus site"), None, active("site")),
        (active("plus site more"), VH, active("virtual-host site")),
        (active("balanced", "plus"), None, active("balanced")),
        (active("balanced", "plus"), VH, active("balanced")),
        (active("plus", "site"), VH, active("virtual-host", "site")),
        (active("plus", "more"), VH, VH),
        (active("balanced", "site"), VH, active("balanced", "site")),
    ],
)
def test_what_is_returned_to(
    now: ActiveProfile, previous: ActiveProfile | None, then: ActiveProfile
) -> None:
    assert returns_to(now, OFF, previous) == then


def test_automatic_mode_stays_beside_a_post_loaded_profile() -> None:
    now = ActiveProfile(("balanced",), automatic=True, post_loaded="plus")
    assert returns_to(now, OFF, None) == ActiveProfile(("balanced",), automatic=True)


Files = Callable[..., SystemRoot]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    def put(**texts: str) -> SystemRoot:
        folder = tmp_path / "etc/tuned"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text)
        return SystemRoot(tmp_path)

    return put


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ({}, ActiveProfile(automatic=True)),
        ({"active_profile": "a\n"}, active("a")),
        ({"active_profile": "\n", "profile_mode": "manual\n"}, ActiveProfile()),
        ({"active_profile": "a b\n", "profile_mode": "manual\n"}, active("a b")),
        ({"active_profile": "a\n", "profile_mode": "auto\n"}, ActiveProfile(("a",), True)),
        ({"active_profile": "a\n", "post_loaded_profile": "b\n"}, active("a", "b")),
    ],
)
def test_tuneds_files_are_read_as_tuned_does(
    texts: dict[str, str], found: ActiveProfile, files: Files
) -> None:
    assert active_profile.read(files(**texts)) == found


@pytest.mark.parametrize("before", [VH, AUTO, ActiveProfile(), ActiveProfile(automatic=True)])
def test_what_was_before_is_remembered(before: ActiveProfile, files: Files) -> None:
    system = files()
    active_profile.remember(before, InstalledProfiles(system))
    assert active_profile.record_file(system).read() == before


def test_one_of_ours_is_not_what_was_before(files: Files) -> None:
    system = files()
    for ours in (active("virtual-host-plus"), active("balanced", "virtual-guest-plus")):
        active_profile.remember(VH, InstalledProfiles(system))
        active_profile.remember(ours, InstalledProfiles(system))
        assert active_profile.record_file(system).read() == VH


def test_a_record_outlives_boots_and_is_written_only_where_it_differs(files: Files) -> None:
    system = files()
    active_profile.remember(VH, InstalledProfiles(system))
    file = Path(system.path(active_profile.RECORD))
    before = file.stat()
    assert json.loads(file.read_text())["boot_id"] == "every boot"
    active_profile.remember(VH, InstalledProfiles(system))
    assert file.stat().st_ino == before.st_ino
    active_profile.remember(AUTO, InstalledProfiles(system))
    assert active_profile.record_file(system).read() == AUTO


@pytest.mark.parametrize(
    "text", ["", "[]", '{"profiles": "a", "mode": "auto"}', '{"profiles": [], "mode": "x"}']
)
def test_a_damaged_record_is_replaced(
    text: str, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    if text.startswith("{"):
        text = json.dumps({"format": 1, "boot_id": "every boot", **json.loads(text)})
    system = files(**{"virt_plus_previous.json": text})
    active_profile.remember(VH, InstalledProfiles(system))
    assert "is damaged" in caplog.text
    assert active_profile.record_file(system).read() == VH


def test_a_record_that_cannot_be_written_stops_nobody(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    system = files()
    (tmp_path / "etc/tuned/virt_plus_previous.new").mkdir()
    active_profile.remember(VH, InstalledProfiles(system))
    assert "virt_plus_previous.json is not written" in caplog.text


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (VH, "virtual-host"),
        (active("a b", "c"), "a b c"),
        (ActiveProfile(), "no profile"),
        (AUTO, "the profile that TuneD chooses (virtual-host)"),
        (ActiveProfile(automatic=True), "TuneD's own choice"),
    ],
)
def test_words(what: ActiveProfile, words: str) -> None:
    assert str(what) == words


def test_a_profile_that_cannot_be_read_is_said(
    files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it is one of ours is in its tuned.conf."""
    system = files()
    conf = Path(system.root, "usr/lib/tuned/virtual-host/tuned.conf")
    conf.parent.mkdir(parents=True)
    conf.write_text("[main]\n")
    fail(monkeypatch, "open", errno.EIO, "tuned.conf")
    active_profile.remember(VH, InstalledProfiles(system))
    assert "is not recorded" in caplog.text
    assert "Input/output error" in caplog.text
    assert not Path(system.path(active_profile.RECORD)).exists()
