# SPDX-License-Identifier: GPL-2.0-or-later
"""What the engine says and keeps, tried with files that stand for the kernel's."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tuned_virt.core.engine import GIVEN_UP, Engine
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.core.plan import Change, Plan, Values
from tuned_virt.core.tuner import Tuner, Writer
from tuned_virt.kernel.files import KernelFS, NotDone


class FileWriter(Writer):
    """A setting called "slow…" has a key of its own, and waits for `go`."""

    timeout = 0.1
    timeout_reason = "the write still waits"

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()

    def worker_key(self, setting: str) -> str:
        return setting if setting.startswith("slow") else ""

    def write(self, fs: KernelFS, change: Change, abandoned: threading.Event) -> str:
        if change.setting.startswith("slow"):
            self.go.wait(5)
        return super().write(fs, change, abandoned)


class Files(Tuner[Values, Values]):
    """Each setting is a file."""

    name = "files"
    options = MappingProxyType({})

    def __init__(self) -> None:
        self.writer = writer = FileWriter()
        self.go = writer.go
        self.notes: tuple[str, ...] = ()
        self.refused: Values = {}
        self.missing: Values = {}
        self.pending: Values = {}
        self.slow = False

    def parse(self, options: Mapping[str, str]) -> Values:
        return dict(options)

    def undoing(self, policy: Values) -> Values:
        return {"undone": "1"} if "undone" in policy else {}

    def read(self, fs: KernelFS, policy: Values, originals: Values) -> Values:
        texts = {name: fs.read_optional(f"/{name}") for name in (*policy, *originals)}
        return {name: text for name, text in texts.items() if text is not None}

    def decide(self, policy: Values, state: Values, originals: Values) -> Plan:
        targets = {**originals, **policy}
        return Plan(
            changes=tuple(
                Change(name, f"/{name}", state[name], value, "set by the profile", self.slow)
                for name, value in targets.items()
                if name in state and state[name] != value
            ),
            originals={name: state[name] for name in policy if name in state},
            wanted=policy,
            refused=self.refused,
            missing=self.missing,
            pending=self.pending,
            notes=self.notes,
        )

    def values(self, state: Values) -> Values:
        return state

    def gone(self, state: Values, setting: str) -> str:
        return "it was unplugged" if setting == "plug" else ""


@pytest.fixture
def tuner() -> Files:
    return Files()


@pytest.fixture
def baseline(tmp_path: Path) -> Originals:
    return Originals(tmp_path / "run", "boot")


@pytest.fixture
def tune(tuner: Files, baseline: Originals, tmp_path: Path) -> Engine[Values, Values]:
    for name in ("a", "b", "plug", "slow"):
        (tmp_path / name).write_text("0")
    return Engine(tuner, KernelFS(tmp_path), baseline, Journal(tmp_path / "journal"))


def verify(tune: Engine[Values, Values], policy: Values) -> list[str]:
    return [str(line) for line in tune.verify(tune.apply(policy), policy, ignore_missing=False)]


def test_what_is_gone_since_is_told_from_what_differs(
    tune: Engine[Values, Values], tmp_path: Path
) -> None:
    policy = {"a": "1", "b": "1", "plug": "1"}
    outcome = tune.apply(policy)
    (tmp_path / "a").write_text("7")
    (tmp_path / "b").unlink()
    (tmp_path / "plug").unlink()
    assert [str(line) for line in tune.verify(outcome, policy, False)] == [
        "verify: failed: 'files a' = '7', expected '1'",
        "verify: failed: 'files b' = 'None', expected '1' (it no longer exists)",
        "verify: note: files: plug: it was unplugged",
    ]
    (tmp_path / "plug").write_text("7")
    [*_, line] = map(str, tune.verify(outcome, policy, False))
    assert line == "verify: failed: 'files plug' = '7', expected '1'"


def test_what_a_plan_says_is_logged_and_verified(
    tune: Engine[Values, Values], tuner: Files, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    tuner.notes = ("others are at work",)
    tuner.refused = {"x": "no room"}
    tuner.missing = {"y": "no such file"}
    found = verify(tune, {"a": "1"})
    assert found == [
        "verify: passed: 'files a' = '1'",
        "verify: failed: files: x: no room",
        "verify: failed: files: y: no such file",
        "verify: note: files: others are at work",
    ]
    assert [(one.levelname, one.message) for one in caplog.records] == [
        ("INFO", "files: a: '0' -> '1' (set by the profile)"),
        ("ERROR", "files: x is not set: no room"),
        ("WARNING", "files: y is skipped: no such file"),
        ("INFO", "files: others are at work"),
    ]


def test_what_cannot_be_put_back_stays_kept_and_nobodys(
    tune: Engine[Values, Values],
    tuner: Files,
    baseline: Originals,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tune.apply({"a": "1", "b": "1"})
    assert baseline.holder("files")
    tuner.pending = {"a": "in use"}
    outcome = tune.restore()
    assert {change.setting for change in outcome.made} == {"a", "b"}
    record = baseline.record("files")
    assert (record.originals, record.pending) == ({"a": "0"}, {"a": "in use"})
    assert record.owner is None
    assert "files: a not restored yet: in use" in caplog.text
    assert verify(tune, {}) == ["verify: note: files: a not restored yet: in use"]


def test_what_still_cannot_be_put_back_is_not_logged_again(
    tune: Engine[Values, Values],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    reasons = ["in use by x", "in use by x", "in use by y"]

    def refuses(self: Writer, fs: KernelFS, change: Change, abandoned: threading.Event) -> str:
        raise NotDone(change.path, reasons.pop(0))

    tune.apply({"a": "1"})
    monkeypatch.setattr(FileWriter, "write", refuses)
    logged = []
    while reasons:
        caplog.clear()
        tune.restore()
        logged.append([one.message for one in caplog.records])
    assert logged == [
        ["files: a: in use by x", "files: a not restored yet: in use by x"],
        [],
        ["files: a: in use by y", "files: a not restored yet: in use by y"],
    ]


def test_another_process_says_it_too(
    tune: Engine[Values, Values],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`tuned-virt restore`, after a TuneD that could not put it back either."""

    def refuses(self: Writer, fs: KernelFS, change: Change, abandoned: threading.Event) -> str:
        raise NotDone(change.path, "in use")

    tune.apply({"a": "1"})
    monkeypatch.setattr(FileWriter, "write", refuses)
    tune.restore()
    caplog.clear()
    Engine(tune.tuner, tune._fs, tune.originals, tune._journal).restore()
    assert [one.message for one in caplog.records] == [
        "files: a: in use",
        "files: a not restored yet: in use",
    ]


def test_undoing_has_the_permissions_of_what_it_undoes(tune: Engine[Values, Values]) -> None:
    assert tune.nothing({"undone": "1", "a": "1"}) == {"undone": "1"}
    assert tune.nothing() == {}


def test_a_lane_that_hangs_is_said_and_put_back_once_it_goes_on(
    tune: Engine[Values, Values],
    tuner: Files,
    baseline: Originals,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tuner.go.clear()
    outcome = tune.apply({"a": "1", "slow": "1"})
    assert outcome.failed == {"slow": "the write still waits"}
    assert [change.setting for change in outcome.made] == ["a"]
    assert "files: slow: the write still waits" in caplog.text
    tune.restore()
    assert baseline.record("files").pending == {"slow": "the write still waits"}
    tuner.go.set()
    while tune._workers.busy:
        threading.Event().wait(0.01)
    assert (tmp_path / "slow").read_text() == "1"
    tune.restore()
    assert (tmp_path / "slow").read_text() == "0"
    assert baseline.all() == {}


def test_a_lane_that_fails_says_why(tune: Engine[Values, Values], tmp_path: Path) -> None:
    assert tune.apply({"slow": "1"}).failed == {}
    (tmp_path / "slow").unlink()
    (tmp_path / "slow").mkdir()
    tune.tuner.read = lambda fs, policy, originals: {"slow": "0"}  # type: ignore[method-assign]
    [reason] = tune.apply({"slow": "2"}).failed.values()
    assert reason == "cannot read /slow: Is a directory"


def test_what_is_given_up_is_no_error(
    tune: Engine[Values, Values],
    tuner: Files,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    tuner.slow = True

    def abandons(self: Writer, fs: KernelFS, change: Change, abandoned: threading.Event) -> str:
        tune.abandon()
        return ""

    monkeypatch.setattr(FileWriter, "write", abandons)
    assert tune.apply({"a": "1", "b": "1"}).failed == {"a": GIVEN_UP, "b": GIVEN_UP}
    assert [(one.levelname, one.message) for one in caplog.records] == [
        ("INFO", "files: started: a: '0' -> '1' (set by the profile)"),
        ("INFO", f"files: a: {GIVEN_UP}"),
        ("INFO", f"files: b: {GIVEN_UP}"),
    ]


def test_what_a_write_did_not_bring_is_an_error(
    tune: Engine[Values, Values], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(FileWriter, "write", lambda *_: "")
    tune.apply({"a": "1"})
    [one] = caplog.records
    assert (one.levelname, one.message) == ("ERROR", "files: a: /a was set to '1' but reads '0'")
