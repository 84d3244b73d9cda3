# SPDX-License-Identifier: GPL-2.0-or-later
"""What other users may have written is not believed: root would write it to the kernel."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.fake_ksm import FakeKsm
from tuned_virt.core import active_profile
from tuned_virt.core.active_profile import ActiveProfile
from tuned_virt.core.engine import Engine, Result
from tuned_virt.core.installed_profiles import InstalledProfiles
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals, OriginalsError
from tuned_virt.core.plan_runner import PlanRunner
from tuned_virt.core.state_file import StateFile
from tuned_virt.core.system_root import SystemRoot
from tuned_virt.placement import unplaced
from tuned_virt.plugins import ksm
from tuned_virt.plugins.blk_elevator_virt.policy import DiskPolicy
from tuned_virt.plugins.blk_elevator_virt.policy_in_force import PolicyInForce
from tuned_virt.plugins.hugepages_numa.progress import Progress, ProgressFile
from tuned_virt.plugins.ksm.controller_state import ControllerState, ControllerStateFile
from tuned_virt.plugins.vm_pinning import held_placements
from tuned_virt.plugins.vm_pinning.held_placements import HeldPlacement

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


def make_every_file(root: Path) -> None:
    """All that the product writes beside the kernel's files (docs/design.md, "Files")."""
    run, etc = root / "run/tuned-virt", root / "etc/tuned"
    kept, journal = Originals(run, "boot"), Journal(root / "lib/journal.jsonl", limit=1)
    engine = Engine(ksm.KsmTuner(state=run), FakeKsm(), kept, journal)
    engine.apply(ksm.parse({"sleep_millisecs": "50"}))
    ControllerStateFile(run / "ksm.json").save(ControllerState())
    PolicyInForce(run).save(DiskPolicy())
    ProgressFile(run).write(Progress(0, 2048, 1, 2, 1.0))
    held = HeldPlacement("u/1", "u", "web1", "web1", 7, unplaced("web1", "u", "why"))
    assert held_placements.save("qemu:///system", {held.key: held}, run / "vm_pinning.json")
    StateFile(run / "ksm.json", dict).save({"phase": ""})
    etc.mkdir(parents=True)
    etc.chmod(0o755)
    active_profile.remember(ActiveProfile(("virtual-host",)), InstalledProfiles(SystemRoot(root)))
    (run / "baseline.json").write_text("damaged")
    Originals(run, "boot").all()


@pytest.mark.parametrize("umask", [0, 0o077])
def test_every_file_and_folder_is_roots_alone_to_write(umask: int, tmp_path: Path) -> None:
    """`tuned -d` runs with a umask of 0, and some start it with one that lets nobody read."""
    before = os.umask(umask)
    try:
        make_every_file(tmp_path)
    finally:
        os.umask(before)
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    names = {re.sub(r"\.\d{9,}$", ".ASIDE", path.name) for path in files}
    assert names == {
        *("baseline.json.ASIDE", "baseline.lock", "ksm.json", "disks.json", "hugepages.json"),
        *("vm_pinning.json", "ksm.json", "journal.jsonl.1", "virt_plus_previous.json"),
    }
    made = [*files, tmp_path / "run/tuned-virt", tmp_path / "lib"]
    for path in made:
        mode = path.stat().st_mode
        assert mode & 0o022 == 0, path
        assert path.stat().st_uid == os.geteuid()
        if path.name != "baseline.lock" and not path.name.startswith("baseline.json."):
            wanted = 0o055 if path.is_dir() else 0o044
            assert mode & wanted == wanted, f"{path}: status is for everybody"
