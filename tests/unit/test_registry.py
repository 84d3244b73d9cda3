# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tuned_virt import plugins
from tuned_virt.registry import tuner, tuners

REPO = Path(__file__).parents[2]
FOLDER = Path(plugins.__file__).parent


def test_every_plugin_registers_itself() -> None:
    there = {path.stem for path in FOLDER.iterdir() if not path.name.startswith("_")}
    assert {one.part_of or name for name, one in tuners().items()} == there


def test_guests_are_restored_first_and_what_tuneds_own_plugins_set_last() -> None:
    names = list(tuners())
    assert names[-1] == "crash_guard"
    guests = {name for name in names if name.startswith("vm_")}
    assert set(names[: len(guests)]) == guests


@pytest.mark.parametrize("name", ["ksm", "hugepages_numa", "blk_elevator_virt", "vm_blkio"])
def test_a_plugin_imports_no_other_and_no_libvirt(name: str) -> None:
    program = (
        "import sys; from tuned_virt import registry; registry.tuner(sys.argv[1]);"
        "print(*{m.split('.')[2] for m in sys.modules if m.startswith('tuned_virt.plugins.')},"
        " *{'libvirt'} & sys.modules.keys())"
    )
    argv = [sys.executable, "-c", program, name]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [name]
    assert tuner(name).name == name
