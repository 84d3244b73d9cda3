# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt preview against what a real switch then changes, on every generation of TuneD."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.kernel_snapshot import active_word
from tests.libvirtd import Libvirtd
from tests.sandbox import Sandbox, wait_for
from tests.system.test_guest_plugins import vcpus

VM = "/proc/sys/vm"
BOOT = "/etc/tuned/bootcmdline"
FOLDERS = "/etc /run /var/lib/tuned-virt /var/tmp /boot"
LATER = "! -name ksm.json ! -name disks.json ! -name journal.jsonl"
STATE = f"find {FOLDERS} -xdev -type f {LATER} -exec sha256sum {{}} + | sort || :"
"""What a switch writes besides the kernel's settings; not all of the folders are there.

Without what the running TuneD writes a moment after a switch: controllers, and the journal.
"""

CHILD = """[main]
summary=what profiles do beside virtual-host-plus
include=virtual-host-plus

[variables]
scan=1234

[sysctl]
drop=vm.swappiness
vm.dirty_expire_centisecs=>2999
vm.stat_interval=<7
vm.dirty_bytes=409600000

[sysfs]
/sys/kernel/mm/transparent_hugepage/khugepaged/pages_to_*=${f:strip: ${scan} }

[bootloader]
cmdline_mine=+quiet mitigations=auto

[ksm]
mode=static
pages_to_scan=777
"""


def preview(t: Sandbox, *arguments: str, user: str = "root") -> dict[str, Any]:
    """What the command prints; it has changed nothing, which is checked."""
    before, files = t.snapshot(), t.run(["sh", "-c", STATE]).stdout
    command = ["setpriv", f"--reuid={user}", "--clear-groups"] if user != "root" else []
    done = t.run([*command, "tuned-virt", "preview", "--json", *arguments], check=False)
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr == ""
    assert t.snapshot() == before
    assert t.run(["sh", "-c", STATE]).stdout == files
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def words(values: Mapping[str, str]) -> dict[str, str]:
    return {path: active_word(text) for path, text in values.items()}


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What a switch has changed, before and after by path."""
    old, new = words(before), words(after)
    return {path: (old[path], new[path]) for path in old if old[path] != new.get(path, old[path])}


def predicted(content: Mapping[str, Any], paths: set[str]) -> dict[str, tuple[str, str]]:
    """What the preview says of the same files, where it claims to know."""
    return {
        one["path"]: (one["before"], one["after"])
        for one in content["changes"]
        if one["path"] in paths and one["after_is"] == "known"
    }


def unknown(content: Mapping[str, Any]) -> set[str]:
    """Files of which the preview says that it does not know."""
    return {one["path"] for one in content["changes"] if one["after_is"] != "known"}


def check_switch(t: Sandbox, name: str) -> dict[str, Any]:
    """Preview, switch, compare: every change is predicted, and each prediction is a change."""
    before = t.snapshot()
    content = preview(t, name)
    t.switch(name)
    changed = differences(before, t.snapshot())
    hidden = unknown(content)
    found = {path: change for path, change in changed.items() if path not in hidden}
    assert found == predicted(content, set(before))
    return content


@pytest.mark.parametrize("name", ["virtual-host-plus", "virtual-guest-plus"])
@pytest.mark.parametrize("active", ["", "balanced", "virtual-host"])
def test_what_is_previewed_is_what_changes(
    tuned: Callable[..., Sandbox], version: str, active: str, name: str
) -> None:
    t = tuned(version)
    if active:
        t.switch(active)
    content = check_switch(t, name)
    assert content["active"] == active.split()
    assert unknown(content) & set(t.snapshot()) == set()
    assert content["refused"] == []
    lines = [one for one in content["changes"] if one["file"]]
    assert all(one["text"] in t.read(one["file"]) for one in lines)
    if not active:
        assert {one["setting"] for one in content["changes"]} >= {"vm.swappiness"}
    t.off()


@pytest.mark.parametrize("name", ["balanced", "virtual-host", "virtual-guest-plus", "child"])
def test_leaving_a_profile_of_ours_all_originals_are_known(
    tuned: Callable[..., Sandbox], version: str, name: str
) -> None:
    t = tuned(version, profiles={"child": CHILD})
    t.switch("virtual-host-plus")
    content = check_switch(t, name)
    assert unknown(content) & set(t.snapshot()) == set()
    t.off()


def test_leaving_a_stock_profile_what_only_tuned_knows_is_named(
    tuned: Callable[..., Sandbox], version: str
) -> None:
    """And nothing else is: of each file that changes, the preview has spoken."""
    t = tuned(version)
    before = t.snapshot()
    t.switch("virtual-host")
    set_by_it = differences(before, t.snapshot()).keys()
    content = check_switch(t, "balanced")
    assert unknown(content) & set(before) >= set_by_it
    reasons = {one["why"] for one in content["changes"] if one["path"] in set_by_it}
    assert any("only its process knows" in why or "its original" in why for why in reasons)
    t.off()


def test_what_profiles_can_do(tuned: Callable[..., Sandbox], version: str) -> None:
    """drop, > and <, ${variables}, functions, patterns, kernel arguments, sysctl.d's files."""
    files = {"/etc/sysctl.d/10-mine.conf": "# mine\nvm.page-cluster = 2\nvm.stat_interval=9\n"}
    t = tuned(version, profiles={"child": CHILD}, files=files)
    content = check_switch(t, "child")
    lines = {one["setting"]: (one["file"], one["text"]) for one in content["changes"]}
    assert lines["vm.dirty_bytes"][1] == "vm.dirty_bytes=409600000"
    assert lines["vm.page-cluster"] == ("/etc/sysctl.d/10-mine.conf", "vm.page-cluster = 2")
    assert lines["pages_to_scan"][0].endswith("/child/tuned.conf")
    [boot] = [one for one in content["changes"] if one["plugin"] == "bootloader"]
    assert (boot["before"], boot["after"]) == ("", "quiet mitigations=auto")
    assert f'TUNED_BOOT_CMDLINE="{boot["after"]}"' in t.read(BOOT)
    assert preview(t, "balanced")["changes"]
    again = preview(t, "child")
    assert again["changes"] == [], "a switch to the same changes nothing"
    t.off()


def test_variables_of_the_active_profile_stay_known(
    tuned: Callable[..., Sandbox], version: str
) -> None:
    """As TuneD has it (redhat-performance/tuned issue 76)."""
    head = "[main]\nsummary=x\n"
    texts = {
        "first": f"{head}[variables]\nmine=23\n",
        "then": f"{head}[sysctl]\nvm.swappiness=${{mine}}\n",
    }
    t = tuned(version, profiles=texts)
    t.switch("first")
    [change] = check_switch(t, "then")["changes"]
    assert change["after"] == "23"
    t.off()


def test_after_the_values_were_changed_by_hand(tuned: Callable[..., Sandbox], version: str) -> None:
    """A switch to the same profile sets them anew."""
    t = tuned(version)
    t.switch("virtual-host-plus")
    t.run(["sh", "-c", f"echo 77 > {VM}/swappiness"])
    content = check_switch(t, "virtual-host-plus")
    assert [(one["before"], one["after"]) for one in content["changes"]] == [("77", "10")]
    t.off()


def test_without_root_and_without_a_daemon(tuned: Callable[..., Sandbox], version: str) -> None:
    t = tuned(version)
    as_root = preview(t, "virtual-host-plus")
    as_nobody = preview(t, "virtual-host-plus", user="nobody")
    assert as_nobody["changes"] == as_root["changes"]
    t.switch("virtual-host")
    assert preview(t, "balanced", user="nobody")["active"] == ["virtual-host"]
    t.off()
    t.terminate()
    stopped = preview(t, "virtual-host-plus", user="nobody")
    assert stopped["changes"] == as_root["changes"]
    assert "it is not running" in stopped["notes"][0]["reason"]
    text = t.run(["tuned-virt", "preview", "virtual-host-plus"]).stdout
    assert "60 → 10" in text
    assert t.run(["tuned-virt", "preview", "nothing"], check=False).returncode == 2


def test_a_program_of_a_profile_runs_at_the_switch_alone(
    tuned: Callable[..., Sandbox], version: str
) -> None:
    trace = "/var/tmp/trace"
    text = "[main]\nsummary=x\n[variables]\nx=${f:exec:/usr/bin/touch:%s}\n[script]\nscript=x.sh\n"
    t = tuned(version, profiles={"programs": text % trace})
    content = preview(t, "programs")
    assert not (t.root / trace.lstrip("/")).exists()
    told = [f"{one['plugin']}: {one['reason']}" for one in content["not_known"]]
    assert any(f"«/usr/bin/touch {trace}»" in reason for reason in told)
    assert any(reason.startswith("script: TuneD runs") for reason in told)
    t.switch("programs")
    assert (t.root / trace.lstrip("/")).exists()
    t.off()


def test_guests_are_pinned_where_the_preview_says(
    tuned: Callable[..., Sandbox], version: str
) -> None:
    pinning = "[main]\nsummary=x\n[vm_pinning]\npolicy=dedicated\nhousekeeping=0\nrunning=place\n"
    t = tuned(version, profiles={"pins": f"{pinning}devices=web*\n"})
    with Libvirtd(t) as libvirtd:
        for name in ("web1", "db1"):
            libvirtd.start_guest(name)
        seen = {one["guest"]: one for one in preview(t, "pins")["guests"]}
        assert not seen["db1"]["changes"]
        told = set(seen["web1"]["vcpus"].values())
        assert seen["web1"]["kind"] == "dedicated"
        t.switch("pins")
        wait_for("web1 pinned", lambda: vcpus(libvirtd, "web1") == told)
        assert vcpus(libvirtd, "db1") == {"0-1"}
        notes = [one["reason"] for one in preview(t, "balanced")["notes"]]
        assert "the original pins of 1 guests are put back" in notes
        t.off()
