# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tuned_virt import plugins
from tuned_virt.guests.restore import GuestRestore
from tuned_virt.registry import tuner, tuners

REPO = Path(__file__).parents[2]
FOLDER = Path(plugins.__file__).parent


def test_every_plugin_registers_itself() -> None:
    there = {path.stem for path in FOLDER.iterdir() if not path.name.startswith("_")}
    assert {one.part_of or name for name, one in tuners().items()} == there


def test_restore_knows_all_that_any_module_registers() -> None:
    """Also what a plugin imports only when it is needed."""
    program = (
        "import importlib, pkgutil; from tuned_virt import plugins, registry;"
        "from tuned_virt.core.tuner import Registered;"
        "known = {*registry.tuners()};"
        "[importlib.import_module(one.name)"
        " for one in pkgutil.walk_packages(plugins.__path__, 'tuned_virt.plugins.')];"
        "ours = {name for name, one in Registered.classes.items()"
        " if one.__module__.startswith('tuned_virt.plugins.')};"
        "print(*sorted(ours - known), len(ours))"
    )
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(tuners()))]


def test_kernel_settings_are_restored_before_guests_whose_libvirt_may_hang() -> None:
    names = list(tuners())
    guests = [name for name, one in tuners().items() if isinstance(one, GuestRestore)]
    assert names[-len(guests) :] == guests
    assert names[-len(guests) - 3 :][:3] == ["vm_blkio", "blk_elevator_virt", "crash_guard"]


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
