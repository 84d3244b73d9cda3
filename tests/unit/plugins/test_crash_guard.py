# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from tuned_virt.core.engine import Engine
from tuned_virt.core.journal import Journal
from tuned_virt.core.options import BadOptions
from tuned_virt.core.originals import Originals
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins.crash_guard import (
    CrashGuardState,
    CrashGuardTuner,
    GuardedFile,
    decide,
    parse,
)


@pytest.mark.parametrize(
    "path", ["/etc/shadow", "/sys/../etc/passwd", "sys/x", "/proc/sysrq-trigger"]
)
def test_only_settings_of_the_kernel(path: str) -> None:
    with pytest.raises(BadOptions, match="stock, or a path under /proc/sys or /sys"):
        parse({"files": path})


def test_patterns_are_separated_by_commas_and_white_space() -> None:
    assert parse({"files": "/sys/a*, /sys/b\n /sys/c"}).patterns == ("/sys/a*", "/sys/b", "/sys/c")


def test_what_a_crash_left_is_put_back_and_kept_on() -> None:
    state = {
        GuardedFile("/proc/sys/vm/swappiness"): "10",
        GuardedFile("/proc/sys/vm/new"): "3",
    }
    plan = decide(CrashGuardState(state, frozenset(state)), {"/proc/sys/vm/swappiness": "60"})
    assert [(c.path, c.before, c.after) for c in plan.changes] == [
        ("/proc/sys/vm/swappiness", "10", "60")
    ]
    assert plan.originals == {"/proc/sys/vm/swappiness": "60", "/proc/sys/vm/new": "3"}


def test_of_a_pair_the_zero_is_written_last() -> None:
    state = CrashGuardState(
        {GuardedFile("/sys/bytes"): "0", GuardedFile("/sys/ratio"): "5"}, frozenset()
    )
    plan = decide(state, {"/sys/bytes": "4096", "/sys/ratio": "0"})
    assert [change.path for change in plan.changes] == ["/sys/bytes", "/sys/ratio"]


def test_a_baseline_that_names_other_files_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/shadow").write_text("secret")
    kept = {"/etc/shadow": "", "/sys/../etc/shadow": ""}
    assert CrashGuardTuner().read(KernelFS(tmp_path), parse({}), kept).values == {}


def test_a_file_that_has_vanished_is_forgotten(tmp_path: Path) -> None:
    fs, baseline = KernelFS(tmp_path), Originals(tmp_path / "run", "boot")
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys/a").write_text("1")
    (tmp_path / "sys/b").write_text("2")
    engine = Engine(CrashGuardTuner(), fs, baseline, Journal(tmp_path / "journal"))
    engine.apply(parse({"files": "/sys/*"}))
    fs.write("/sys/a", "9")
    (tmp_path / "sys/b").unlink()
    assert engine.restore().failed == {}
    assert fs.read("/sys/a") == "1"
    assert baseline.all() == {}
