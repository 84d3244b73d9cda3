# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings arrive at the plugins, or verify says why not, on each generation of TuneD."""

from __future__ import annotations

import glob
from collections.abc import Callable

import pytest

from tests.sandbox import Sandbox

FILE = "/etc/tuned/virtual-host-plus-variables.conf"
RUN = "/sys/kernel/mm/ksm/run"
SWAPPINESS = "/proc/sys/vm/swappiness"

SITE = "[main]\nsummary=another\n[variables]\ninclude=/etc/tuned/site.conf\nsite=1\n"
CHILD = "[main]\nsummary=a child\ninclude=virtual-host-plus\n[ksm]\nmode=static\nrun=1\n"

Tuned = Callable[..., Sandbox]


def switched(tuned: Tuned, version: str, text: str, profile: str, ksm: str = "1") -> Sandbox:
    """A host with KSM's `run` as given, this settings file, and a profile switched to."""
    profiles = {"site": SITE, "child": CHILD}
    files = {FILE: text, "/etc/tuned/site.conf": "colour=red\n"}
    t = tuned(version, profiles=profiles, files=files, setup=f"echo {ksm} > {RUN}")
    t.switch(profile)
    return t


@pytest.mark.parametrize("profile", ["virtual-host-plus site", "site virtual-host-plus"])
def test_another_profiles_include_does_not_hide_the_file(
    tuned: Tuned, version: str, profile: str
) -> None:
    text = "ksm_mode=static\nksm_run=0\nksm_sleep_millisecs=77\nswappiness=7\n"
    t = switched(tuned, version, text, profile)
    assert t.verify(), t.verify_lines
    assert t.read(RUN) == "0"
    assert t.read("/sys/kernel/mm/ksm/sleep_millisecs") == "77"
    assert t.read(SWAPPINESS) == "7"


@pytest.mark.parametrize("profile", ["virtual-host-plus site", "site virtual-host-plus"])
def test_observe_holds_for_our_plugins_beside_another_include(
    tuned: Tuned, version: str, profile: str
) -> None:
    t = switched(tuned, version, "ksm_mode=off\nobserve=1\n", profile)
    assert t.read(RUN) == "1"
    t.verify()  # fails where stock's own section does (boost on 2.27)
    assert "note: 'ksm run' = '1', observed only, would be '0'" in t.verify_lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ksm_mod=off\n", "line 1: 'ksm_mod=off' is not a setting: did you mean ksm_mode?"),
        ("\nksm_mode=of\n", "line 2: 'ksm_mode=of' is not valid: one of"),
        ("ksm_mode=off\nksm_mode=off\n", "line 2: 'ksm_mode=off' is a second ksm_mode"),
        ("\ufeff# mine\nksm_mode=off\n", "line 1: it begins with a byte order mark (BOM)"),
        ("ksm_mode: off\n", "is not of the form NAME=VALUE; did you mean ksm_mode=off?"),
        ("ksm_mode=off\n  ksm_unmerge=allow\n", "line 2: 'ksm_unmerge=allow' is indented"),
    ],
)
def test_an_error_is_named_and_its_section_is_not_applied(
    tuned: Tuned, version: str, text: str, said: str
) -> None:
    t = switched(tuned, version, text, "virtual-host-plus")
    assert t.read(RUN) == "1", "nothing of [ksm] is applied"
    assert not t.verify()
    lines = t.verify_lines.splitlines()
    assert any(f"failed: 'ksm': {FILE}: " in line and said in line for line in lines)
    t.write(FILE, "ksm_mode=off\n")
    t.switch("virtual-host-plus")
    assert t.verify(), t.verify_lines
    assert t.read(RUN) == "0"


def test_an_images_settings_are_below_the_machines(tuned: Tuned, version: str) -> None:
    image = "/usr/lib/tuned-virt/virtual-host-plus-variables.conf"
    texts = {FILE: "ksm_sleep_millisecs=77\n"}
    texts[image] = "ksm_mode=static\nksm_run=0\nksm_sleep_millisecs=55\nswappiness=7\n"
    t = tuned(version, files=texts, setup=f"echo 1 > {RUN}")
    t.switch("virtual-host-plus")
    assert t.verify(), t.verify_lines
    assert (t.read(RUN), t.read(SWAPPINESS)) == ("0", "7")
    assert t.read("/sys/kernel/mm/ksm/sleep_millisecs") == "77"
    t.write(image, "ksm_mod=off\n")
    t.switch("virtual-host-plus")
    assert not t.verify()
    assert f"failed: 'ksm': {image}: line 1: 'ksm_mod=off' is not a setting" in t.verify_lines


def test_a_childs_section_wins_over_the_file(tuned: Tuned, version: str) -> None:
    t = switched(tuned, version, "ksm_mode=off\nswappiness=7\n", "child", ksm="0")
    assert t.verify(), t.verify_lines
    assert t.read(RUN) == "1"
    assert t.read(SWAPPINESS) == "7"


@pytest.mark.parametrize("option", ["vm.swappiness=60", "vm.swappiness = 60"])
def test_another_profiles_value_for_tuneds_own_plugin_is_told(
    tuned: Tuned, version: str, option: str
) -> None:
    t = switched(tuned, version, "swappiness=7\n", "virtual-host-plus")
    assert t.verify(), t.verify_lines
    for folder in ("/etc/tuned", "/etc/tuned/profiles"):
        t.write(f"{folder}/database/tuned.conf", f"[main]\nsummary=x\n[sysctl]\n{option}\n")
    t.switch("virtual-host-plus database")
    assert t.read(SWAPPINESS) == "60"
    assert not t.verify()
    said = f"'swappiness' = '60', expected '7': {FILE}: line 1 does not hold: the profile database"
    assert f"failed: {said} sets vm.swappiness=60 in [sysctl]" in t.verify_lines


def test_whoever_has_won_over_a_value_of_tuneds_own_plugins_is_named(
    tuned: Tuned, version: str
) -> None:
    text = "swappiness=7\ndirty_background_ratio=3\npower=balanced\nread_ahead=stock\n"
    t = switched(tuned, version, text, "virtual-host-plus")
    t.verify()
    assert "does not hold" not in t.verify_lines
    other = "[sysctl]\nvm.dirty_background_bytes=209715200\n[cpu]\ngovernor=powersave\n"
    for folder in ("/etc/tuned", "/etc/tuned/profiles"):
        t.write(f"{folder}/other/tuned.conf", f"[main]\n{other}[disk]\nreadahead=128\n")
    t.write("/etc/sysctl.d/zz-db.conf", "# mine\nvm.swappiness = 60\n")
    t.switch("virtual-host-plus other")
    assert t.read(SWAPPINESS) == "60"
    assert not t.verify()
    for said in (
        f"'swappiness' = '60', expected '7': {FILE}: line 1 does not hold: /etc/sysctl.d/zz-db.con",
        "line 2 does not hold: the profile other sets vm.dirty_background_bytes=209715200 in",
        "line 3 does not hold: the profile other sets governor=powersave in [cpu]",
        "line 4 does not hold: the profile other sets readahead=128 in [disk]",
    ):
        assert said in t.verify_lines
    t.switch("other virtual-host-plus")
    t.verify()
    assert "line 1 does not hold" in t.verify_lines
    assert "line 3 does not hold" not in t.verify_lines


def test_a_value_that_is_kept_may_be_another_profiles(tuned: Tuned, version: str) -> None:
    """power=keep and read_ahead=keep leave out what the stock profile sets, nothing of others."""
    t = switched(tuned, version, "power=keep\nread_ahead=keep\n", "virtual-host-plus")
    assert t.verify(), t.verify_lines
    [disk, *_] = glob.glob("/sys/block/[nsv][dv]*/queue/read_ahead_kb")
    before = t.read(disk)
    for folder in ("/etc/tuned", "/etc/tuned/profiles"):
        t.write(f"{folder}/other/tuned.conf", "[main]\n[disk]\nreadahead=512\n")
    for names in ("other virtual-host-plus", "virtual-host-plus other"):
        t.switch(names)
        assert t.read(disk) == "512"
        assert t.verify(), t.verify_lines
        assert "note: 'read_ahead': " in t.verify_lines
    t.switch("virtual-host-plus")
    assert t.read(disk) == before


def test_own_variables_that_a_profile_uses_are_no_errors(tuned: Tuned, version: str) -> None:
    t = switched(tuned, version, "mine=1\n", "virtual-host-plus", ksm="0")
    assert not t.verify()
    text = f"[main]\ninclude=child\n[variables]\ninclude={FILE}\n[ksm]\nrun=${{mine}}\n"
    for folder in ("/etc/tuned", "/etc/tuned/profiles"):
        t.write(f"{folder}/mine/tuned.conf", text)
    t.switch("mine")
    assert t.verify(), t.verify_lines
    assert t.read(RUN) == "1"
