# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import pytest

from tests.unit.kernel import FRESH, FakeKsm
from tuned_virt import cli
from tuned_virt.cli import daemon, ksm_table, log, restore, status, verify
from tuned_virt.cli.common import CouldNot
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import UnheldOriginals
from tuned_virt.core.plan import Change
from tuned_virt.plugins.ksm import KsmPolicy, KsmTuner

REPO = Path(__file__).parents[3]


def test_from_a_checkout_with_nothing_installed() -> None:
    done = subprocess.run(
        ["/usr/bin/python3", "-m", "tuned_virt", "--version"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("tuned-virt-plus ")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert "usage: tuned-virt" in capsys.readouterr().out


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_a_module_says_of_its_command_what_help_says(command: str) -> None:
    documented = (cli.module(command).__doc__ or "").splitlines()[0]
    assert documented == f"tuned-virt {command}: {cli.COMMANDS[command]}."


def test_every_command_is_a_module_of_its_name() -> None:
    names = {f"{name}_" if name == "import" else name.replace("-", "_") for name in cli.COMMANDS}
    found = Path(cli.__file__).parent.glob("*.py")
    assert names <= {file.stem for file in found}


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jinja2", "jsonschema", "configobj", "libvirt"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from tuned_virt import cli
from tuned_virt.core import active_profile
active_profile.remember = lambda *_: None
sys.exit(cli.main(sys.argv[1:]))
"""
"""Records nothing in this machine's /etc."""


def without_optional_packages(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["/usr/bin/python3", "-c", WITHOUT, *arguments]
    return subprocess.run(
        command, cwd=Path(cli.__file__).parents[2], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["role"],
        ["restore", "--help"],
        ["disable", "--help"],
        ["restore", "--leftover"],
        ["disks"],
        ["hugepages"],
    ],
)
def test_what_puts_back_needs_no_optional_package(arguments: list[str]) -> None:
    assert "Traceback" not in (done := without_optional_packages(*arguments)).stderr
    assert "not installed" not in done.stderr


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "ksmtuned.conf").touch()
    done = without_optional_packages("import", "ksmtuned", "--from", f"{tmp_path}/ksmtuned.conf")
    assert done.returncode == 2
    assert done.stderr == "tuned-virt: the Python module configobj is not installed\n"


def test_a_wrong_command_line_is_exit_2() -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["frobnicate"])
    assert ended.value.code == 2


@pytest.fixture(autouse=True)
def no_libvirt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ksm_table, "ask_libvirt", lambda: ({}, ""))


@pytest.fixture
def no_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: daemon.Daemon) -> None:
        raise daemon.NotRunning("TuneD is not running: systemctl start tuned")

    monkeypatch.setattr(daemon.Daemon, "__init__", fail)


@pytest.mark.usefixtures("no_daemon")
def test_without_tuned_verify_cannot_and_status_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify"]) == 2
    assert capsys.readouterr().err == "tuned-virt: TuneD is not running: systemctl start tuned\n"
    assert cli.main(["status"]) == 1
    assert "profile   TuneD is not running" in capsys.readouterr().out
    assert cli.main(["status", "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["verified"] is False
    assert content["nodes"]


def fake_daemon(monkeypatch: pytest.MonkeyPatch, verified: bool, lines: list[str]) -> None:
    monkeypatch.setattr(daemon.Daemon, "__init__", lambda self: None)
    monkeypatch.setattr(daemon.Daemon, "active_profile", lambda self: "virtual-host-plus")
    monkeypatch.setattr(daemon.Daemon, "verify", lambda self, ignore_missing: (verified, lines))


def test_verify_prints_wanted_and_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        "INFO     tuned: verify: passed: 'a' = '1'",
        "ERROR    tuned: verify: failed: 'b' = '2', expected '3'",
    ]
    fake_daemon(monkeypatch, False, lines)
    assert cli.main(["verify"]) == 1
    assert capsys.readouterr().out == (
        "passed  'a' = '1'\nfailed  'b' = '2', expected '3'\nvirtual-host-plus: 1 of 2 differ: b\n"
    )
    assert cli.main(["verify", "--quiet"]) == 1
    assert "'a'" not in capsys.readouterr().out
    assert cli.main(["verify", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["lines"][1]["wanted"] == "3"
    assert cli.main(["status"]) == 1
    assert "differs from the profile: b" in capsys.readouterr().out


def test_a_verified_profile_is_exit_0(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_daemon(monkeypatch, True, ["INFO     tuned: verify: passed: 'a' = '1'"])
    monkeypatch.setattr(status, "Originals", _NothingKept)
    monkeypatch.setattr(verify, "Originals", _NothingKept)
    assert cli.main(["verify"]) == 0
    assert cli.main(["status"]) == 0


class _NothingKept:
    def all(self) -> dict[str, object]:
        return {}

    def remarks(self) -> list[str]:
        return []


def test_log_prints_the_last_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(tmp_path / "journal")
    monkeypatch.setattr(log, "Journal", lambda: journal)
    assert cli.main(["log"]) == 0
    assert capsys.readouterr().out == "no changes are recorded\n"
    for value in "123":
        journal.add("ksm", Change("run", "/x", "0", value, "set by the profile"))
    assert cli.main(["log", "-n", "2", "--plugin", "ksm"]) == 0
    assert [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()] == [
        "ksm  run: '0' -> '2'  (set by the profile)",
        "ksm  run: '0' -> '3'  (set by the profile)",
    ]
    assert cli.main(["log", "--json", "--plugin", "vm_blkio"]) == 0
    assert json.loads(capsys.readouterr().out)["changes"] == []
    assert cli.main(["log", "--json", "-n", "1"]) == 0
    [change] = json.loads(capsys.readouterr().out)["changes"]
    assert abs(datetime.fromisoformat(change["when"]).timestamp() - time.time()) < 60
    guarded = "/sys/block/sda#6929/queue/read_ahead_kb"
    journal.add("crash_guard", Change(guarded, "/x", "0", "1", "original value"))
    assert cli.main(["log", "-n", "1"]) == 0
    assert "crash_guard  /sys/block/sda/queue/read_ahead_kb: '0'" in capsys.readouterr().out
    assert cli.main(["log", "-n", "0"]) == 2
    with pytest.raises(SystemExit):
        cli.main(["log", "--plugin", "none"])
    assert "'none' (choose from" in capsys.readouterr().err


def test_restore_is_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.main(["restore"]) == 2


@pytest.mark.parametrize(
    ("arguments", "unmerge"),
    [([], "never"), (["--unmerge"], "allow"), (["--force-unmerge"], "force")],
)
def test_restore_unmerges_as_far_as_it_is_told(
    arguments: list[str], unmerge: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Tuner(KsmTuner):
        def parse(self, options: Mapping[str, str]) -> KsmPolicy:
            asked.append(super().parse(options).unmerge.value)
            return super().parse(options)

    baseline = UnheldOriginals(tmp_path)
    baseline.keep("ksm", {"run": "0"})
    baseline.release("ksm")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(restore, "UnheldOriginals", lambda: baseline)
    monkeypatch.setattr(restore, "Journal", lambda: Journal(tmp_path / "journal"))
    monkeypatch.setattr(restore, "KernelFS", lambda: FakeKsm({**FRESH, "run": "1"}))
    monkeypatch.setattr(restore, "tuners", lambda: {"ksm": Tuner(state=tmp_path)})
    assert cli.main(["restore", *arguments]) == 0
    assert asked == [unmerge]
    assert baseline.all() == {}


def test_restore_unmerges_in_one_way(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["restore", "--unmerge", "--force-unmerge"])
    assert "not allowed with" in capsys.readouterr().err


def test_an_output_that_nobody_reads_is_no_traceback() -> None:
    done = subprocess.run(
        ["sh", "-c", "/usr/bin/python3 -m tuned_virt log --help | true"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_errors_are_one_line() -> None:
    assert "\n" not in str(CouldNot("x"))
