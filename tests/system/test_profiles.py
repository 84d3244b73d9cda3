# SPDX-License-Identifier: GPL-2.0-or-later
"""The two profiles under every TuneD generation: effective values, verify, and the way back."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping

import pytest

from tests.sandbox import SUITES, Sandbox, wait_for

VM = "/proc/sys/vm"
ARP = "/proc/sys/net/ipv4/conf/all/arp_filter"
ONLINE = "/sys/devices/system/memory/auto_online_blocks"

EFFECTIVE = {
    "virtual-host-plus": {
        f"{VM}/swappiness": "10",
        f"{VM}/dirty_ratio": "40",
        f"{VM}/dirty_background_ratio": "5",
        "/sys/kernel/mm/ksm/run": "0",
        "/proc/sys/net/core/somaxconn": "4096",
        ARP: "0",
    },
    "virtual-guest-plus": {
        f"{VM}/swappiness": "30",
        f"{VM}/dirty_ratio": "30",
        f"{VM}/dirty_background_ratio": "10",
        "/sys/kernel/mm/ksm/run": "0",
        ONLINE: "online",
        ARP: "0",
    },
}


@pytest.fixture(params=EFFECTIVE)
def plus(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_write_back_in_bytes(tuned: Callable[..., Sandbox], version: str, plus: str) -> None:
    """5 % of 512 GiB are 25 GiB."""
    wanted = {"dirty_background_bytes": "67108864", "dirty_bytes": "134217728"}
    t = tuned(version)
    before = t.snapshot()
    text = "".join(f"{name}={value}\n" for name, value in wanted.items())
    t.write(f"/etc/tuned/{plus}-variables.conf", text)
    t.switch(plus)
    assert {name: t.read(f"{VM}/{name}") for name in wanted} == wanted
    t.verify()
    assert [
        line for line in t.verify_lines.splitlines() if "failed" in line and "dirty" in line
    ] == []
    t.off()
    assert t.snapshot() == before


def set_values(t: Sandbox, values: Mapping[str, str]) -> None:
    for path, value in values.items():
        t.run(["sh", "-c", f"echo {value} > {path}"])


def test_effective_values_verify_and_way_back(
    tuned: Callable[..., Sandbox], version: str, plus: str
) -> None:
    t = tuned(version)
    before = t.snapshot()
    t.run(["tuned-adm", "profile", plus])
    after = t.snapshot()
    assert {path: after[path] for path in EFFECTIVE[plus]} == EFFECTIVE[plus]
    assert f"Current active profile: {plus}" in t.run(["tuned-adm", "active"]).stdout
    assert t.run(["tuned-adm", "verify"]).returncode == 0
    changed = {path for path in after if after[path] != before.get(path)}
    unexpected = changed - EFFECTIVE[plus].keys()
    assert not [path for path in unexpected if not path.endswith("read_ahead_kb")]
    t.run(["tuned-adm", "off"])
    assert t.snapshot() == before


def test_kill9_then_off_loses_nothing_even_of_tuneds_own(
    tuned: Callable[..., Sandbox], version: str, plus: str
) -> None:
    t = tuned(version)
    before = t.snapshot()
    t.switch(plus)
    tuned_values = t.snapshot()
    t.kill9()
    t.start()
    assert t.snapshot() == tuned_values
    assert t.verify()
    t.off()
    assert t.snapshot() == before


@pytest.mark.parametrize("generation", ["2.20", "2.25"])
def test_what_stock_tuned_loses_at_a_kill9(tuned: Callable[..., Sandbox], generation: str) -> None:
    """The limit that crash_guard lifts, measured."""
    t = tuned(generation)
    before = t.snapshot()
    t.switch("virtual-host")
    t.kill9()
    t.start()
    t.off()
    lost = {path for path, value in t.snapshot().items() if value != before[path]}
    assert {f"{VM}/swappiness", f"{VM}/dirty_ratio"} <= lost


def test_kill9_at_any_moment_of_applying(
    tuned: Callable[..., Sandbox], version: str, plus: str
) -> None:
    t = tuned(version)
    before = t.snapshot()
    moments = random.Random(f"{version} {plus}")
    for _ in range(6):
        t.call("switch_profile", plus)
        t.call("start")
        time.sleep(moments.uniform(0, 0.06))
        t.kill9()
        t.start()
    t.switch(plus)
    assert t.verify()
    t.off()
    assert t.snapshot() == before


def test_a_switch_after_a_crash(tuned: Callable[..., Sandbox], version: str) -> None:
    t = tuned(version)
    before = t.snapshot()
    t.switch("virtual-host-plus")
    t.kill9()
    t.start()
    t.switch("virtual-guest-plus")
    assert t.verify()
    t.switch("virtual-host")
    t.off()
    assert t.snapshot() == before


def test_a_crash_without_a_next_tuned(tuned: Callable[..., Sandbox], version: str) -> None:
    t = tuned(version)
    before = t.snapshot()
    t.switch("virtual-host-plus")
    t.kill9()
    t.run(["tuned-virt", "restore"])
    assert t.snapshot() == before


def test_originals_in_bytes_come_back_in_bytes(
    tuned: Callable[..., Sandbox], version: str, plus: str
) -> None:
    """Writing one of a pair zeroes the other, and stock TuneD puts back the wrong one."""
    t = tuned(version)
    ratios = {name: t.read(f"{VM}/{name}") for name in ("dirty_ratio", "dirty_background_ratio")}
    try:
        set_values(
            t, {f"{VM}/dirty_bytes": "400000000", f"{VM}/dirty_background_bytes": "99999744"}
        )
        before = t.snapshot()
        t.switch(plus)
        assert t.verify()
        t.off()
        assert t.snapshot() == before
    finally:
        set_values(t, {f"{VM}/{name}": value for name, value in ratios.items()})


def test_the_administrators_variables(tuned: Callable[..., Sandbox], version: str) -> None:
    variables = (
        "swappiness=1\nksm_mode=static  # as before\nksm_run=1\nksm_sleep_millisecs=50\n"
        "arp_filter=1\n"
    )
    t = tuned(version, files={"/etc/tuned/virtual-host-plus-variables.conf": variables})
    before = t.snapshot()
    t.switch("virtual-host-plus")
    after = t.snapshot()
    assert after[f"{VM}/swappiness"] == "1"
    assert after["/sys/kernel/mm/ksm/run"] == "1"
    assert after["/sys/kernel/mm/ksm/sleep_millisecs"] == "50"
    assert after[ARP] == "1"
    assert t.verify()
    t.off()
    assert t.snapshot() == before


def test_a_bad_variable_is_named_and_the_rest_of_the_profile_holds(
    tuned: Callable[..., Sandbox], version: str
) -> None:
    t = tuned(version, files={"/etc/tuned/virtual-host-plus-variables.conf": "ksm_run=7\n"})
    t.switch("virtual-host-plus")
    assert t.read(f"{VM}/swappiness") == "10"
    assert not t.verify()
    file = "/etc/tuned/virtual-host-plus-variables.conf"
    said = f"{file}: line 1: 'ksm_run=7' is not valid: one of 0, 1, 2"
    assert said in t.verify_lines
    done = t.run(["tuned-virt", "verify", "--quiet"], check=False)
    assert done.returncode == 1
    assert said in done.stdout
    t.off()


def test_what_the_administrator_set_himself_is_left(
    tuned: Callable[..., Sandbox], version: str
) -> None:
    t = tuned(version)
    set_values(t, {ARP: "1", ONLINE: "online_movable"})
    try:
        t.switch("virtual-guest-plus")
        assert t.snapshot()[ARP] == "1"
        assert t.snapshot()[ONLINE] == "online_movable"
        assert t.verify()
    finally:
        t.off()
        set_values(t, {ONLINE: "offline"})


def test_hot_plugged_memory_is_left_to_the_distributions_rule(
    tuned: Callable[..., Sandbox], version: str
) -> None:
    rule = 'SUBSYSTEM=="memory", ACTION=="add", ATTR{state}=="offline", ATTR{state}="online"\n'
    t = tuned(version, files={"/usr/lib/udev/rules.d/40-redhat-hotplug.rules": rule})
    t.switch("virtual-guest-plus")
    assert t.read(ONLINE) == "offline"
    assert t.verify()
    assert "handled by /usr/lib/udev/rules.d/40-redhat-hotplug.rules" in t.verify_lines


def test_observe_changes_nothing_of_the_stock_profile(
    tuned: Callable[..., Sandbox], version: str, plus: str
) -> None:
    """TuneD's own tuning stays as it is, which before was taken back while verify passed."""
    t = tuned(version, files={f"/etc/tuned/{plus}-variables.conf": "observe=1\n"})
    untuned = t.snapshot()
    t.switch(plus.removesuffix("-plus"))
    before, verified = t.snapshot(), t.verify()
    assert before != untuned
    t.switch(plus)
    assert t.snapshot() == before
    assert t.verify() is verified
    said = "auto controls pages_to_scan" if plus == "virtual-host-plus" else "would be"
    assert said in t.verify_lines
    assert not (t.root / "run/tuned-virt/baseline.json").exists()
    t.switch(plus.removesuffix("-plus"))
    assert t.snapshot() == before
    t.off()
    assert t.snapshot() == untuned


@pytest.mark.parametrize("said", ["", "False", "no"])
def test_observe_is_off_alike_for_tuneds_plugins_and_ours(
    tuned: Callable[..., Sandbox], version: str, said: str
) -> None:
    t = tuned(version, files={"/etc/tuned/virtual-host-plus-variables.conf": f"observe={said}\n"})
    t.switch("virtual-host-plus")
    assert t.read(f"{VM}/swappiness") == "10"
    wait_for("the loop", (t.root / "run/tuned-virt/ksm.json").exists)
    assert t.verify()
    t.off()


def test_status_verify_and_log_say_what_is(tuned: Callable[..., Sandbox], version: str) -> None:
    static = {"/etc/tuned/virtual-host-plus-variables.conf": "ksm_mode=static\nksm_run=1\n"}
    t = tuned(version, files=static)
    t.switch("virtual-host-plus")
    status = t.run(["tuned-virt", "status"]).stdout
    assert "profile   virtual-host-plus, verified" in status
    assert "KSM       merging," in status
    report = json.loads(t.run(["tuned-virt", "status", "--json"]).stdout)
    assert report["nodes"][0]["total_mib"] > 100
    assert report["differing"] == []
    set_values(t, {f"{VM}/swappiness": "55", "/sys/kernel/mm/ksm/run": "0"})
    done = t.run(["tuned-virt", "verify"], check=False)
    assert done.returncode == 1
    assert "failed  'vm.swappiness' = '55', expected '10'" in done.stdout
    assert "failed  'ksm run' = '0', expected '1'" in done.stdout
    lines = json.loads(t.run(["tuned-virt", "verify", "--json"], check=False).stdout)["lines"]
    assert {
        (line["option"], line["found"], line["wanted"])
        for line in lines
        if line["result"] == "failed"
    } == {("vm.swappiness", "55", "10"), ("ksm run", "0", "1")}
    done = t.run(["tuned-virt", "status"], check=False)
    assert done.returncode == 1
    assert "differs from the profile: vm.swappiness, ksm run" in done.stdout
    t.off()
    assert t.run(["tuned-virt", "verify"], check=False).returncode == 2
    assert "ksm  run: '0' -> '1'  (set by the profile)" in t.run(["tuned-virt", "log"]).stdout
    t.terminate()
    assert "TuneD is not running" in t.run(["tuned-virt", "verify"], check=False).stderr


def test_install_lays_out_what_every_generation_finds(tuned: Callable[..., Sandbox]) -> None:
    for generation in SUITES:
        t = tuned(generation)
        listed = t.run(["tuned-adm", "list"]).stdout
        for name in EFFECTIVE:
            assert listed.count(f"- {name}") == 1
