# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the next profile takes over what ours has set."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.core.test_installed_profiles import profiles
from tuned_virt.core import stock_files
from tuned_virt.core.next_profile import NextProfile, takes_over

KSM, THP = "/sys/kernel/mm/ksm/run", "/sys/kernel/mm/transparent_hugepage/enabled"
BALANCING = "/proc/sys/kernel/numa_balancing"
ELEVATOR = ("disk", "elevator")


def taken_over(tmp_path: Path, text: str, plugin: str = "ksm", *files: str) -> bool:
    found = profiles(tmp_path, {"next": text, "base": "[ksm]\n", "gone": "[main]\ninclude=nowhere"})
    chain = [*found.chain("next")]
    return takes_over(chain, plugin, files, ELEVATOR)


@pytest.mark.parametrize(
    "text",
    [
        "[ksm]\n",
        "[any]\ntype=ksm\n",
        "[main]\ninclude=base\n",
        f"[ksm]\n[sysfs]\n{KSM}=\n",
        "[ksm]\n[disk]\nreadahead=4096\n",
        "[ksm]\n[sysctl]\nvm.swappiness=10\n",
    ],
)
def test_the_same_plugin_takes_over(text: str, tmp_path: Path) -> None:
    assert taken_over(tmp_path, text, "ksm", KSM)


@pytest.mark.parametrize(
    "text",
    [
        "[main]\nsummary=none of ours\n",
        "[hugepages_numa]\n",
        f"[ksm]\n[sysfs]\n{KSM}=2\n",
        "[ksm]\n[mine]\ntype=sysfs\n/sys/kernel/mm/ksm/r*=2\n",
        "[ksm]\n[vm]\ntransparent_hugepage=never\n",
        "[main]\ninclude=base\n[sysctl]\nkernel.numa_balancing=0\n",
        "[ksm]\n[disk]\nelevator=none\n",
    ],
)
def test_where_something_else_sets_the_same_nothing_stays(text: str, tmp_path: Path) -> None:
    assert not taken_over(tmp_path, text, "ksm", KSM, THP, BALANCING)


@pytest.mark.parametrize("text", ["[main\n", "[main]\ninclude=nowhere\n", "[main]\ninclude=gone\n"])
def test_a_profile_that_cannot_be_loaded_leaves_the_one_in_force(text: str, tmp_path: Path) -> None:
    assert taken_over(tmp_path, text)


def test_of_several_profiles(tmp_path: Path) -> None:
    found = profiles(tmp_path, {"one": "[disk]\nelevator=none\n", "other": "[ksm]\n"})
    both = NextProfile(("one", "other"), profiles=found)
    assert both.takes_over("ksm", [KSM])
    assert not both.takes_over("ksm", [KSM], ELEVATOR)
    assert not both.takes_over("vm_pinning")
    assert not NextProfile((), profiles=found).takes_over("ksm")


def test_where_profiles_cannot_be_read_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = profiles(tmp_path, {"next": "[ksm]\n"})
    monkeypatch.setattr(found, "file", _unreadable)
    assert not NextProfile(("next",), profiles=found).takes_over("ksm")


def _unreadable(name: str, but: object = ()) -> str:
    raise PermissionError(name)


@pytest.mark.parametrize(
    ("plugin", "option", "path"),
    [
        ("sysfs", "/sys/a/*", "/sys/a/*"),
        ("sysctl", "vm.swappiness", "/proc/sys/vm/swappiness"),
        ("vm", "transparent_hugepages", THP),
        ("vm", "type", ""),
        ("mine", "transparent_hugepages", ""),
    ],
)
def test_files_of_tuneds_own_options(plugin: str, option: str, path: str) -> None:
    assert stock_files.pattern(plugin, option) == path
