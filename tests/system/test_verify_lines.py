# SPDX-License-Identifier: GPL-2.0-or-later
"""verify, status and log tell each value of the profile, TuneD's own too, and each wish that is
not granted; what they print for programs is what their schemas say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.libvirtd import Libvirtd
from tests.sandbox import Sandbox, wait_for
from tests.schemas import valid
from tuned_virt.model.guest import POLICY_NAMESPACE

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

STOCK = {
    "virtual-host-plus": {"vm.swappiness", "net.core.somaxconn", "readahead", "governor",
                          "energy_perf_bias", "min_perf_pct", "force_latency"},
    "virtual-guest-plus": {"vm.swappiness", "net.core.somaxconn", "readahead", "governor",
                           "energy_perf_bias", "min_perf_pct"},
}  # fmt: skip
"""What TuneD's own plugins set in every generation."""

DIRTY = {"dirty_ratio", "dirty_background_ratio"}
"""Set too, in [vm] or as vm.… in [sysctl], by profile and generation."""

NEWER = {"platform_profile", "panel_power_savings", "energy_performance_preference"}
MORE = {"2.20": DIRTY, "2.25": DIRTY | NEWER, "latest": DIRTY | NEWER}
"""What they set besides in one generation."""


def verify(t: Sandbox) -> dict[str, Any]:
    return valid(json.loads(t.run(["tuned-virt", "verify", "--json"], check=False).stdout))


@pytest.mark.parametrize("profile", STOCK)
def test_each_value_of_tuneds_own_has_one_line(
    profile: str, tuned: Callable[..., Sandbox], version: str
) -> None:
    t = tuned(version)
    t.switch(profile)
    assert t.verify()
    content = verify(t)
    names = {line["option"] for line in content["lines"] if line["option"]}
    names |= {name.removeprefix("vm.") for name in names}
    assert (STOCK[profile] | MORE[version]) - names == set()
    told = Counter((line["option"], line["device"]) for line in content["lines"] if line["option"])
    assert [name for name, count in told.items() if count > 1] == []


def test_what_differs_of_tuneds_own_fails_with_its_values(
    tuned: Callable[..., Sandbox], version: str
) -> None:
    t = tuned(version)
    t.switch("virtual-host-plus")
    option = "vm.dirty_ratio" if version == "2.20" else "dirty_ratio"
    t.run(["sh", "-c", "echo 33 > /proc/sys/vm/dirty_ratio"])
    assert not t.verify()
    [failed] = [line for line in verify(t)["lines"] if line["result"] == "failed"]
    assert (failed["option"], failed["found"], failed["wanted"]) == (option, "33", "40")
    status = t.run(["tuned-virt", "status"], check=False)
    assert status.returncode == 1
    assert f"differs from the profile: {option}\n" in status.stdout


def changes(t: Sandbox) -> list[dict[str, Any]]:
    content = valid(json.loads(t.run(["tuned-virt", "log", "--json", "--plugin", "tuned"]).stdout))
    found: list[dict[str, Any]] = content["changes"]
    return found


def test_log_has_what_tuned_changed_and_restored(
    tuned: Callable[..., Sandbox], version: str
) -> None:
    t = tuned(
        version, setup="echo 61 > /proc/sys/vm/swappiness; echo 21 > /proc/sys/vm/dirty_ratio"
    )
    t.switch("virtual-host-plus")
    wait_for("written down", lambda: len(changes(t)) > 1)
    told = {one["setting"]: (one["before"], one["after"]) for one in changes(t)}
    assert told["[sysctl] vm.swappiness"] == ("61", "10")
    section = "sysctl] vm." if version == "2.20" else "vm] "
    assert told[f"[{section}dirty_ratio"] == ("21", "40")
    t.off()
    [restored] = [one for one in changes(t) if "swappiness" in one["setting"]][1:]
    assert (restored["before"], restored["after"]) == ("10", "61")
    assert restored["why"] == "restored by TuneD"


def test_status_without_root_could_not_check(tuned: Callable[..., Sandbox], version: str) -> None:
    t = tuned(version)
    t.switch("virtual-host-plus")
    assert t.run(["tuned-virt", "status"], check=False).returncode == 0
    done = t.run([*NOBODY, "tuned-virt", "status"], check=False)
    assert (done.returncode, done.stderr) == (2, "")
    assert "profile   virtual-host-plus (run as root to verify)\n" in done.stdout
    done = t.run([*NOBODY, "tuned-virt", "status", "--json"], check=False)
    content = valid(json.loads(done.stdout))
    assert (content["verified"], content["unverified"]) == (None, "run as root to verify")
    done = t.run([*NOBODY, "tuned-virt", "verify"], check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "sudo tuned-virt verify" in done.stderr


# --- wishes ---------------------------------------------------------------------------------------


@pytest.fixture
def pair(tuned: Callable[..., Sandbox], version: str) -> Iterator[tuple[Sandbox, Libvirtd]]:
    t = tuned(version)
    with ExitStack() as stack:
        yield t, stack.enter_context(Libvirtd(t))


def lines(t: Sandbox) -> str:
    t.verify()
    return t.verify_lines


def wish(policy: str) -> str:
    return f"<metadata><policy xmlns='{POLICY_NAMESPACE}' policy='{policy}'/></metadata>"


@pytest.mark.parametrize(
    ("policy", "asked", "why"),
    [
        ("dedicated", "policy=dedicated", "not dedicated: it needs"),
        ("isolated", "what its metadata asks", "its metadata is not valid: option 'policy'"),
    ],
)
def test_a_wish_that_is_not_granted_fails_verify(
    policy: str, asked: str, why: str, pair: tuple[Sandbox, Libvirtd]
) -> None:
    t, libvirtd = pair
    t.switch("virtual-host-plus")
    libvirtd.start_guest("first", extra_xml=wish("dedicated"))
    wait_for("placed", lambda: "first: 'vm_pinning' = 'dedicated" in lines(t))
    assert t.verify()
    libvirtd.start_guest("wants", extra_xml=wish(policy))
    wait_for("looked at", lambda: "wants: 'vm_pinning'" in lines(t))
    assert not t.verify(), "tuned-adm verify fails too"
    [line] = [one for one in verify(t)["lines"] if one["result"] == "failed"]
    assert (line["device"], line["wanted"]) == ("wants", asked)
    status = t.run(["tuned-virt", "status"], check=False)
    assert status.returncode == 1
    assert f"guest     wants: {asked} is not granted: {why}" in status.stdout
    content = valid(json.loads(t.run(["tuned-virt", "status", "--json"], check=False).stdout))
    assert [(one["guest"], one["asked"]) for one in content["ungranted"]] == [("wants", asked)]
    libvirtd.stop_guest("wants")
    wait_for("forgotten", t.verify)


# --- for programs ---------------------------------------------------------------------------------

REPORTS = (
    ["status"], ["status", "--ksm"], ["guests"], ["plan"], ["map"], ["hugepages"], ["disks"],
    ["hugepages", "plan", "--set", "pages_2M=0:0"], ["hugepages", "cmdline"], ["verify"], ["log"],
    ["role"], ["import", "ksmtuned", "--from", "/etc/ksmtuned.conf"],
)  # fmt: skip


def test_what_is_printed_for_programs_is_what_the_schemas_say(
    pair: tuple[Sandbox, Libvirtd],
) -> None:
    t, libvirtd = pair
    t.write("/etc/ksmtuned.conf", "KSM_NPAGES_MAX=2500\n")
    t.switch("virtual-host-plus")
    libvirtd.start_guest("web1")
    wait_for("placed", lambda: "'vm_pinning' = 'shared" in lines(t))
    seen = {}
    for words in REPORTS:
        done = t.run(["tuned-virt", *words, "--json"], check=False)
        content = valid(json.loads(done.stdout))
        seen[content["kind"]] = content
    assert len(seen) == len(REPORTS)
    uuids = {
        kind: [(one["guest"], one["uuid"]) for one in content[where]]
        for kind, content in seen.items()
        for where in ("guests", "placements")
        if where in content
    }
    assert set(uuids) == {"status", "guests", "plan", "map", "hugepages"}
    [[(name, uuid)]] = {tuple(found) for found in uuids.values()}
    assert (name, len(uuid)) == ("web1", 36)
