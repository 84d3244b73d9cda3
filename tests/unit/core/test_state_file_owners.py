# SPDX-License-Identifier: GPL-2.0-or-later
"""What other users may have written is not believed: root would write it to the kernel."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.fake_ksm import FakeKsm
from tuned_virt.core.engine import Engine, Result
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals, OriginalsError
from tuned_virt.core.plan_runner import PlanRunner
from tuned_virt.plugins import ksm

Spoil = Callable[[Path, pytest.MonkeyPatch], None]


def all_may_write_the_folder(folder: Path, patch: pytest.MonkeyPatch) -> None:
    folder.chmod(0o777)


def a_group_may_write_the_file(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "baseline.json").chmod(0o664)


def the_folder_is_a_link(folder: Path, patch: pytest.MonkeyPatch) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


def another_user_has_the_folder(folder: Path, patch: pytest.MonkeyPatch) -> None:
    real = os.lstat

    def theirs(path: str) -> os.stat_result:
        fields = list(real(path))
        fields[stat.ST_UID] = 4711
        return os.stat_result(fields)

    patch.setattr(os, "lstat", theirs)


SPOILT = (
    all_may_write_the_folder,
    a_group_may_write_the_file,
    the_folder_is_a_link,
    another_user_has_the_folder,
)


@pytest.mark.parametrize("spoil", SPOILT)
def test_originals_that_others_may_write_are_not_set(
    spoil: Spoil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, fs = tmp_path / "run", FakeKsm()
    Originals(folder, "boot").keep("ksm", {"run": "1"})
    spoil(folder, monkeypatch)
    engine = Engine(
        ksm.KsmTuner(state=tmp_path), fs, Originals(folder, "boot"), Journal(tmp_path / "journal")
    )
    runner = PlanRunner(engine)
    runner.restore()
    runner.apply(ksm.parse({"sleep_millisecs": "50"}))
    assert fs.writes == []
    [found] = [one for one in runner.verify(False) if one.result is Result.FAILED]
    assert "so it is not used" in found.text
    with pytest.raises(OriginalsError, match="so it is not used"):
        Originals(folder, "boot").all()
    assert (folder / "baseline.json").exists()


@pytest.mark.parametrize("umask", [0, 0o077])
def test_every_file_and_folder_is_roots_alone_to_write(umask: int, tmp_path: Path) -> None:
    """`tuned -d` runs with a umask of 0."""
    before = os.umask(umask)
    try:
        Originals(tmp_path / "run", "boot").keep("ksm", {"run": "1"})
        fs = FakeKsm()
        engine = Engine(
            ksm.KsmTuner(state=tmp_path / "run"),
            fs,
            Originals(tmp_path / "run", "boot"),
            Journal(tmp_path / "lib/journal.jsonl"),
        )
        engine.apply(ksm.parse({"sleep_millisecs": "50"}))
    finally:
        os.umask(before)
    made = [
        path for name in ("run", "lib") for path in (tmp_path / name, *(tmp_path / name).iterdir())
    ]
    assert len(made) >= 5
    for path in made:
        assert path.stat().st_mode & 0o022 == 0, path
        assert path.stat().st_uid == os.geteuid()
