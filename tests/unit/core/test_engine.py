# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.kernel import FakeKsm
from tuned_virt.core.engine import Engine
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals, OriginalsError
from tuned_virt.kernel.files import KernelFileError
from tuned_virt.plugins import ksm


def engine(fs: FakeKsm, folder: Path) -> Engine[ksm.KsmPolicy, ksm.KsmState]:
    return Engine(ksm.KsmTuner(), fs, Originals(folder, "boot"), Journal(folder / "journal"))


def lines(tune: Engine[ksm.KsmPolicy, ksm.KsmState], options: dict[str, str]) -> list[str]:
    policy = ksm.parse(options)
    return [str(line) for line in tune.verify(tune.apply(policy), policy, ignore_missing=False)]


def test_originals_are_kept_before_the_first_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[dict[str, str]] = []
    write = FakeKsm.write

    def looks_first(self: FakeKsm, path: str, value: str) -> None:
        kept.append(Originals(tmp_path, "boot").record("ksm").originals)
        write(self, path, value)

    monkeypatch.setattr(FakeKsm, "write", looks_first)
    engine(FakeKsm(), tmp_path).apply(ksm.parse({"run": "1", "sleep_millisecs": "50"}))
    assert kept == [{"run": "0", "sleep_millisecs": "20"}] * 2


def test_without_room_for_originals_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Originals, plugin: str, originals: dict[str, str]) -> None:
        raise OriginalsError("cannot keep originals: No space left on device")

    monkeypatch.setattr(Originals, "keep", full)
    fs = FakeKsm()
    found = lines(engine(fs, tmp_path), {"run": "1"})
    assert fs.writes == []
    assert "ksm: nothing is changed: cannot keep originals: No space left" in caplog.text
    assert found[0].startswith("verify: failed: 'ksm run' = '0', expected '1' (cannot keep")


def test_a_refused_write_is_said_and_the_others_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = FakeKsm.write

    def refuses(self: FakeKsm, path: str, value: str) -> None:
        if path.endswith("sleep_millisecs"):
            raise KernelFileError(path, "Read-only file system", value)
        write(self, path, value)

    monkeypatch.setattr(FakeKsm, "write", refuses)
    found = lines(engine(FakeKsm(), tmp_path), {"run": "1", "sleep_millisecs": "50"})
    assert sorted(found) == [
        "verify: failed: 'ksm sleep_millisecs' = '20', expected '50' (cannot write '50' to"
        " /sys/kernel/mm/ksm/sleep_millisecs: Read-only file system)",
        "verify: passed: 'ksm run' = '1'",
    ]


def test_a_write_that_the_kernel_ignores_is_found_by_reading_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeKsm, "write", lambda self, path, value: None)
    outcome = engine(FakeKsm(), tmp_path).apply(ksm.parse({"run": "1"}))
    assert outcome.failed == {"run": "/sys/kernel/mm/ksm/run was set to '1' but reads '0'"}


def test_observe_changes_nothing_and_says_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    fs = FakeKsm()
    tune, policy = engine(fs, tmp_path), ksm.parse({"run": "1"})
    outcome = tune.observe(policy)
    assert fs.writes == []
    assert "ksm: observe: would set run: '0' -> '1' (set by the profile)" in caplog.text
    assert [str(line) for line in tune.verify(outcome, policy, False)] == [
        "verify: note: 'ksm run' = '0', observed only, would be '1'"
    ]


def test_observe_after_tuning_puts_the_tuning_back(tmp_path: Path) -> None:
    fs = FakeKsm()
    tune = engine(fs, tmp_path)
    tune.apply(ksm.parse({"run": "1"}))
    tune.observe(ksm.parse({"run": "1"}))
    assert fs.settings()["run"] == "0"


def test_missing_settings_follow_ignore_missing(tmp_path: Path) -> None:
    fs = FakeKsm()
    del fs.files[f"{ksm.FOLDER}/smart_scan"]
    tune, policy = engine(fs, tmp_path), ksm.parse({"smart_scan": "0"})
    outcome = tune.apply(policy)
    for ignore, result in ((False, "failed"), (True, "note")):
        [line] = tune.verify(outcome, policy, ignore)
        assert str(line) == (
            f"verify: {result}: ksm: smart_scan: this kernel has no /sys/kernel/mm/ksm/smart_scan"
        )


def test_every_change_is_in_the_journal_with_its_reason(tmp_path: Path) -> None:
    tune = engine(FakeKsm(), tmp_path)
    tune.apply(ksm.parse({"run": "1"}))
    tune.restore()
    assert [
        (entry.setting, entry.before, entry.after, entry.why)
        for entry in Journal(tmp_path / "journal").entries()
    ] == [("run", "0", "1", "set by the profile"), ("run", "1", "0", "original value")]


def test_whatever_fails_in_between_ksmd_ends_as_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = FakeKsm.write

    def refuses(self: FakeKsm, path: str, value: str) -> None:
        if path.endswith("merge_across_nodes"):
            raise KernelFileError(path, "Device or resource busy", value)
        write(self, path, value)

    monkeypatch.setattr(FakeKsm, "write", refuses)
    fs = FakeKsm(shared=100)
    options = {"run": "1", "merge_across_nodes": "0", "unmerge": "allow"}
    outcome = engine(fs, tmp_path).apply(ksm.parse(options))
    assert set(outcome.failed) == {"merge_across_nodes"}
    assert [value for name, value in fs.writes if name == "run"] == ["2", "1"]
