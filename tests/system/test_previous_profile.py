# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt disable` returns to the profile that was active before ours, on each TuneD."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.sandbox import Sandbox, SystemdSandbox, wait_for

Tuned = Callable[..., Sandbox]

SITE = {"site": "[main]\nsummary=x\n[sysctl]\nvm.overcommit_ratio=51\n"}
RATIO = "/proc/sys/vm/overcommit_ratio"
MAIN = "/etc/tuned/tuned-main.conf"


def disable(t: Sandbox, *arguments: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(t.run(["tuned-virt", "disable", "--json", *arguments]).stdout)
    return said


def mode(t: Sandbox) -> str:
    return str(t.call("profile_mode")[0])


def status(t: Sandbox) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(t.run(["tuned-virt", "status", "--json"], check=False).stdout)
    return said


BOOST = "'boost'"
"""Of stock profiles of TuneD 2.27; kernels before 6.11 do not have it."""


def test_to_the_profile_before(tuned: Tuned, version: str) -> None:
    t = tuned(version)
    before = t.snapshot()
    t.switch("virtual-guest")
    of_guest = t.snapshot()
    t.switch("virtual-host-plus")
    assert t.snapshot() != of_guest
    assert status(t)["returns_to"] == {"profiles": ["virtual-guest"], "mode": "manual", "notes": []}
    assert disable(t)["profiles"] == ["virtual-guest"]
    assert (t.active(), mode(t)) == ("virtual-guest", "manual")
    assert t.snapshot() == of_guest
    wait_for("verified", lambda: t.verify_but(BOOST))
    assert t.read("/etc/tuned/active_profile") == "virtual-guest"
    assert not disable(t)["changed"]
    t.off()
    assert t.snapshot() == before


def test_to_none_where_none_was_active(tuned: Tuned, version: str) -> None:
    t = tuned(version)
    before = t.snapshot()
    assert t.active() == ""
    t.switch("virtual-host-plus")
    assert disable(t)["notes"] == []
    assert t.active() == ""
    assert t.snapshot() == before


def test_over_a_reload_a_restart_and_a_switch_among_ours(tuned: Tuned, version: str) -> None:
    mine = "[main]\ninclude=virtual-host-plus\n"
    t = tuned(version, profiles={"mine": mine})
    t.switch("virtual-guest")
    of_guest = t.snapshot()
    t.switch("virtual-host-plus")
    t.sighup()
    t.switch("mine")
    t.terminate()
    t.start()
    t.kill9()
    t.start()
    assert t.active() == "mine"
    disable(t)
    assert t.active() == "virtual-guest"
    assert t.snapshot() == of_guest


@pytest.mark.parametrize("order", ["virtual-host-plus site", "site virtual-host-plus"])
def test_another_active_profile_stays(tuned: Tuned, version: str, order: str) -> None:
    t = tuned(version, profiles=SITE)
    t.switch("virtual-guest")
    t.switch(order)
    assert t.read(RATIO) == "51"
    disable(t)
    assert t.active() == order.replace("virtual-host-plus", "virtual-guest")
    assert t.read(RATIO) == "51"
    assert t.read("/etc/tuned/active_profile") == t.active()
    t.off()
    assert t.read(RATIO) == "50"


def test_to_automatic_mode(tuned: Tuned, version: str) -> None:
    t = tuned(version, files={"/etc/tuned/profile_mode": "auto\n"})
    chosen = str(t.call("recommend_profile"))
    assert (t.active(), mode(t)) == (chosen, "auto")
    before = t.snapshot()
    t.switch("virtual-host-plus")
    assert mode(t) == "manual"
    assert disable(t)["mode"] == "auto"
    assert (t.active(), mode(t)) == (chosen, "auto")
    assert t.read("/etc/tuned/profile_mode") == "auto"
    assert t.snapshot() == before


def test_a_post_loaded_profile_of_ours_is_found_and_goes(tuned: Tuned, version: str) -> None:
    files = {
        "/etc/tuned/post_loaded_profile": "virtual-host-plus\n",
        "/etc/tuned/active_profile": "virtual-guest\n",
    }
    t = tuned(version, files=files, start=False)
    before = t.snapshot()
    t.start()
    assert t.active() == "virtual-guest virtual-host-plus"
    assert disable(t)["off"] == ["virtual-host-plus"]
    assert t.active() == "virtual-guest"
    assert t.read("/etc/tuned/post_loaded_profile") == ""
    wait_for("verified", lambda: t.verify_but(BOOST))
    t.off()
    assert t.snapshot() == before


def test_a_post_loaded_profile_of_others_stays(tuned: Tuned, version: str) -> None:
    """Also where no other profile was active before."""
    t = tuned(version, profiles=SITE, files={"/etc/tuned/post_loaded_profile": "site\n"})
    assert t.active() == "site"
    before = t.snapshot()
    t.switch("virtual-host-plus")
    assert t.active() == "virtual-host-plus site"
    disable(t)
    assert t.active() == "site"
    assert t.read(RATIO) == "51"
    assert t.snapshot() == before


def test_a_profile_that_is_no_more(tuned: Tuned, version: str) -> None:
    t = tuned(version, profiles=SITE)
    before = t.snapshot()
    t.switch("site")
    t.switch("virtual-host-plus")
    t.run(["rm", "-r", "/etc/tuned/site", "/etc/tuned/profiles/site"])
    [note] = disable(t)["notes"]
    assert "there is no profile 'site'" in note
    assert t.active() == ""
    assert t.snapshot() == before


def test_with_etc_read_only(tuned: Tuned, version: str) -> None:
    """TuneD's files keep the profile before, which a reboot brings back."""
    t = tuned(version)
    t.switch("virtual-guest")
    of_guest = t.snapshot()
    t.run(["mount", "--bind", "/etc/tuned", "/etc/tuned"])
    t.run(["mount", "-o", "remount,bind,ro", "/etc/tuned"])
    t.switch("virtual-host-plus")
    assert "virt_plus_previous.json is not written: Read-only file system" in t.log()
    wait_for("verified", lambda: t.verify_but(BOOST))
    assert t.read("/etc/tuned/active_profile") == "virtual-guest"
    done = t.run(["tuned-virt", "enable", "virtual-host-plus"], check=False)
    assert done.returncode == 2
    assert "Read-only file system" in done.stderr
    disable(t)
    assert t.active() == "virtual-guest"
    assert t.snapshot() == of_guest


# --- by a real systemd ---------------------------------------------------------------------------


def configure(t: Sandbox, name: str, value: str) -> None:
    t.write(MAIN, f"{t.read(MAIN)}\n{name} = {value}\n")


def one_shot(t: Sandbox, profile: str) -> None:
    t.run(["tuned-adm", "profile", profile], check=False)
    wait_for(profile, lambda: f"'{profile}' applied" in t.log())


def test_one_shot_mode(version: str) -> None:
    """No daemon, no D-Bus: `tuned-adm profile` writes TuneD's files and restarts the service."""
    t = SystemdSandbox(version, start=False)
    with t:
        configure(t, "daemon", "0")
        one_shot(t, "virtual-guest")
        of_guest = t.snapshot()
        one_shot(t, "virtual-host-plus")
        assert t.read("/sys/kernel/mm/ksm/run") == of_guest["/sys/kernel/mm/ksm/run"]
        assert t.read("/etc/tuned/active_profile") == "virtual-host-plus"
        assert t.read("/proc/sys/vm/swappiness") == "10", "it stays applied"
        said = disable(t)
        assert said["profiles"] == ["virtual-guest"]
        assert t.read("/etc/tuned/active_profile") == "virtual-guest"
        assert any("systemctl restart tuned" in note for note in said["notes"])
        assert t.snapshot() == of_guest
        t.restart()
        wait_for("virtual-guest", lambda: t.read("/proc/sys/vm/swappiness") == "30")


@pytest.mark.parametrize("version", ["2.25", "latest"])
def test_what_stays_at_exit_goes_with_disable(version: str) -> None:
    """rollback=not_on_exit, which TuneD 2.20 does not have."""
    t = SystemdSandbox(version)
    with t:
        before = t.snapshot()
        configure(t, "rollback", "not_on_exit")
        t.restart()
        t.switch("virtual-host-plus")
        tuned = t.snapshot()
        t.terminate_alone()
        assert t.snapshot() == tuned != before
        disable(t)
        assert t.snapshot() == before
        assert t.read("/etc/tuned/active_profile") == ""


def test_a_running_service(tuned_service: SystemdSandbox) -> None:
    t = tuned_service
    t.switch("virtual-guest")
    of_guest = t.snapshot()
    t.switch("virtual-host-plus")
    t.restart()
    disable(t)
    assert t.active() == "virtual-guest"
    assert t.snapshot() == of_guest
