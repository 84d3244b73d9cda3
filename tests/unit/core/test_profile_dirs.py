# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-main.conf: folders of profiles, and whether tuning outlives TuneD."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from tuned_virt.cli import restore
from tuned_virt.core import profile_dirs
from tuned_virt.kernel import systemd


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("", False),
        ("daemon = 1\nrollback = auto\n", False),
        ("#daemon = 0\n# rollback = not_on_exit\n", False),
        ("rollback = not_on_exit\n", True),
        ("  rollback=not_on_exit  # kept\n", True),
        ("rollback=not_on_exit\nrollback=auto\n", False),
        ("daemon = 0\n", True),
        ("daemon=False\n", True),
        ("daemon = off\n", True),
        ("daemon = on\n", False),
        ("no_daemon=0\n", False),
    ],
)
def test_what_tuned_is_told_to_leave_at_its_end(text: str, stays: bool) -> None:
    assert profile_dirs.stays_applied(text) is stays


@pytest.mark.parametrize(
    ("text", "leftover", "expected"),
    [
        ("daemon=0\n", "ended", []),
        ("rollback=not_on_exit\n", "ended", []),
        ("daemon=1\n", "ended", [("ended", "never")]),
        ("daemon=0\n", "starting", [("starting", "never")]),
        ("daemon=0\n", None, [(None, "never")]),
    ],
)
def test_leftovers_of_a_tuned_that_leaves_its_tuning_stay(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    leftover: str | None,
    expected: list[tuple[str | None, str]],
) -> None:
    main = tmp_path / "tuned-main.conf"
    main.write_text(text)
    done: list[tuple[str | None, str]] = []
    monkeypatch.setattr(profile_dirs, "MAIN", str(main))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(systemd, "restarting", lambda: False)

    def put_back(which: str | None, unmerge: str) -> int:
        done.append((which, unmerge))
        return 0

    monkeypatch.setattr(restore, "put_back", put_back)
    assert restore.run(argparse.Namespace(leftover=leftover, unmerge="never", json=False)) == 0
    assert done == expected
