# SPDX-License-Identifier: GPL-2.0-or-later
"""Chains of includes, as TuneD's loader follows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuned_virt.core.installed_profiles import (
    NEW_FOLDERS,
    OLD_FOLDERS,
    InstalledProfiles,
    our_plugins,
)
from tuned_virt.core.system_root import SystemRoot
from tuned_virt.registry import tuners


def profiles(root: Path, texts: dict[str, str], folder: str = OLD_FOLDERS[0]) -> InstalledProfiles:
    for name, text in texts.items():
        file = root / folder.lstrip("/") / name / "tuned.conf"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (root / "etc").mkdir(exist_ok=True)
    return InstalledProfiles(SystemRoot(root))


def including(text: str) -> str:
    return f"[main]\ninclude={text}\n"


def test_our_plugins_are_those_that_are_registered() -> None:
    assert our_plugins() == {one for one in tuners() if not tuners()[one].part_of}


def test_folders_by_generation_and_by_configuration(tmp_path: Path) -> None:
    found = profiles(tmp_path, {"balanced": ""})
    assert found.folders() == list(OLD_FOLDERS)
    assert profiles(tmp_path, {"balanced": ""}, NEW_FOLDERS[0]).folders() == list(NEW_FOLDERS)
    (tmp_path / "etc/tuned").mkdir()
    (tmp_path / "etc/tuned/tuned-main.conf").write_text("profile_dirs=/a, /b;/c\n")
    assert found.folders() == ["/a", "/b", "/c"]


@pytest.mark.parametrize(
    ("include", "names"),
    [
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        ("a ; b", ["a", "b"]),
        ("-a,-gone", ["a"]),
        ("b,-${f:exec:/bin/sh:${i:PROFILE_DIR}/x.sh:a,b}", ["b"]),
        ("virt-${f:virt_check:host:guest}", []),
        ("top,a", ["a"]),
        ("", []),
    ],
)
def test_includes(include: str, names: list[str], tmp_path: Path) -> None:
    found = profiles(tmp_path, {"a": "[main]\n", "b": "[main]\n", "top": including(include)})
    assert [one.name for one in found.chain("top")] == ["top", *names]
    assert found.wrong("top") == ""


def test_names_of_options_are_as_written(tmp_path: Path) -> None:
    """As TuneD has it: files of sysfs have capitals, and Include= is nothing to it."""
    text = "[main]\nInclude=gone\n[sysfs]\n/sys/class/net/A/mtu=1500\n"
    found = profiles(tmp_path, {"top": text})
    assert found.wrong("top") == ""
    assert [one.says("sysfs", "/sys/class/net/A/mtu") for one in found.chain("top")] == ["1500"]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({}, "there is no profile 'top' in "),
        ({"top": including("gone")}, "no profile 'gone', which 'top' includes, in "),
        ({"top": including("a"), "a": including("gone")}, "'gone', which 'a' includes, in "),
        ({"top": including("a b"), "a": "", "b": ""}, "there is no profile 'a b', which"),
        ({"top": "no section\n"}, "cannot read the profile 'top': File contains no section"),
        ({"top": including("a"), "a": "[x\n"}, "cannot read the profile 'a': File contains no"),
        ({"top": "[main]\n\xff\n"}, "cannot read the profile 'top': "),
    ],
)
def test_what_tuned_cannot_load_is_said(texts: dict[str, str], said: str, tmp_path: Path) -> None:
    assert said in profiles(tmp_path, texts).wrong("top")


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "../etc", "a b", "a+b", "a/b", "é"])
def test_a_name_that_tuned_drops_is_no_profile(name: str, tmp_path: Path) -> None:
    found = profiles(tmp_path, {"a+b": "[main]\n", "a b": "[main]\n", ".hidden": "[main]\n"})
    assert found.file(name) is None
    assert found.wrong(name)


def test_a_profile_that_includes_the_one_that_it_hides(tmp_path: Path) -> None:
    """An administrator's virtual-host on top of the distribution's."""
    profiles(tmp_path, {"virtual-host": including("web"), "web": "[ksm]\n"})
    found = profiles(tmp_path, {"virtual-host": including("virtual-host")}, OLD_FOLDERS[1])
    assert [one.name for one in found.chain("virtual-host")] == ["virtual-host"] * 2 + ["web"]
    assert found.uses("virtual-host")
    assert found.wrong("virtual-host") == ""


def test_a_circle_ends(tmp_path: Path) -> None:
    found = profiles(tmp_path, {"a": including("b"), "b": including("a")})
    assert [one.name for one in found.chain("a")] == ["a", "b"]
    assert found.wrong("a") == ""


def test_what_uses_ours(tmp_path: Path) -> None:
    texts = {
        "stock": "[vm]\n",
        "direct": "[pages]\ntype=ksm\n",
        "child": including("-virtual-host-plus"),
        "virtual-host-plus": "[main]\n",
    }
    found = profiles(tmp_path, texts)
    assert [name for name in texts if found.uses(name)] == ["direct", "child", "virtual-host-plus"]
    assert [name for name in texts if found.uses(name, ["virtual-host-plus"])] == [
        "child",
        "virtual-host-plus",
    ]
    assert found.uses("virtual-guest-plus"), "also where its package is gone"
    assert found.plugins("direct") == {"ksm"}
