# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt snapshot`: what it writes, redacted unless it is told not to, and for whom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.test_redaction import SECRET, secret_host
from tuned_virt.cli import collection, main, snapshot_file

DATA = Path(__file__).parents[2] / "data"
HOST = str(DATA / "hosts/two-nodes.xml")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "here", lambda fs: secret_host())


def test_redacted_by_default(tmp_path: Path) -> None:
    file = tmp_path / "host.json"
    assert main(["snapshot", "-o", str(file)]) == 0
    assert SECRET not in file.read_text()
    assert snapshot_file.load(str(file)).redacted
    assert file.stat().st_mode & 0o600 == 0o600


def test_in_full_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "host.json"
    assert main(["snapshot", "--no-redact", "-o", str(file)]) == 0
    assert f"{SECRET} guest" in file.read_text()
    assert not snapshot_file.load(str(file)).redacted
    assert file.stat().st_mode & 0o777 == 0o600


def test_notes_say_nothing_that_is_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["snapshot"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["redacted"]["counts"]["MAC addresses"]
    assert captured.err.startswith("note: guest guest-1: NIC 52:54:00:00:00:")
    assert SECRET not in captured.err


def test_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guest = str(DATA / "guests/web.xml")
    assert main(["snapshot", "--host", HOST, "--guest", guest]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["role"], content["state"]) == (None, None)
    assert main(["snapshot", "--host", HOST, "-o", str(tmp_path / "no/host.json")]) == 2
    assert "no/host.json: No such file" in capsys.readouterr().err
    assert main(["snapshot", "--guest", guest]) == 2
