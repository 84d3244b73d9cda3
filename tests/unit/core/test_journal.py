# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import json
from pathlib import Path

import pytest

from tuned_virt.core.journal import Journal
from tuned_virt.core.plan import Change

CHANGE = Change("run", "/sys/kernel/mm/ksm/run", "0", "1", "set by the profile")


def test_what_was_added_is_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "var/journal.jsonl")
    journal.add("ksm", CHANGE)
    [entry] = journal.entries()
    assert (entry.plugin, entry.setting, entry.before, entry.after, entry.why) == (
        *("ksm", "run", "0", "1", "set by the profile"),
    )


def test_it_is_bounded(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl", limit=2000)
    for _ in range(200):
        journal.add("ksm", CHANGE)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 2 * 2000 + 500
    assert len(list(journal.entries())) > 5


def test_lines_that_are_no_entry_are_passed_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    damaged = f"nonsense\n[]\n{json.dumps({'when': 1})}\n".encode() + b"\xff\x00\n"
    (tmp_path / "journal.jsonl").write_bytes(damaged)
    journal.add("ksm", CHANGE)
    assert len(list(journal.entries())) == 1


def test_a_journal_that_cannot_be_written_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    Journal(tmp_path / "file/journal.jsonl").add("ksm", CHANGE)
    assert "change not written to the journal" in caplog.text
