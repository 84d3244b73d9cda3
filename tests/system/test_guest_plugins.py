# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests as TuneD's devices, under real daemons of three generations with a real libvirtd."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.libvirtd import Libvirtd
from tests.pinners import affinities
from tests.sandbox import Sandbox, wait_for

HEAD = "[main]\nsummary=guests\n"
BALANCING = "kernel.numa_balancing"
DEDICATED = "policy=dedicated\nhousekeeping=0\n"
PROFILES = {
    "dedicated": f"{HEAD}[vm_pinning]\n{DEDICATED}",
    "same": f"{HEAD}[pins]\ntype=vm_pinning\n{DEDICATED}",
    "web": f"{HEAD}[vm_pinning]\ndevices=web*,!web9\n{DEDICATED}",
    "two": f"{HEAD}[none]\ntype=vm_pinning\ndevices=db*\npolicy=none\npriority=-1\n"
    f"[vm_pinning]\n{DEDICATED}",
    "both": f"{HEAD}[vm_pinning]\n{DEDICATED}[vm_limits]\n[vm_blkio]\n",
    "other": f"{HEAD}[sysctl]\nvm.swappiness=11\n",
    "unbalanced": f"{HEAD}[vm_pinning]\nrunning=place\nnuma_balancing=0\n",
    "balanced": f"{HEAD}[sysctl]\n{BALANCING}=2\n[vm_pinning]\n{DEDICATED}running=place\n",
    "contrary": f"{HEAD}[vm_pinning]\nrunning=place\nnuma_balancing=0\n[sysctl]\n{BALANCING}=2\n",
    "bad": f"{HEAD}[vm_pinning]\npolicy=nodes\nsmtt=1\n[sysctl]\nvm.swappiness=11\n",
    "observe": f"{HEAD}[vm_pinning]\nobserve=1\nrunning=place\n{DEDICATED}",
}


@pytest.fixture(scope="session", autouse=True)
def ksm_stopped() -> None:
    """These guests need nothing of KSM: it is left alone."""


@pytest.fixture
def pair(tuned: Callable[..., Sandbox], version: str) -> Iterator[tuple[Sandbox, Libvirtd]]:
    t = tuned(version, profiles=PROFILES)
    with ExitStack() as stack:
        yield t, stack.enter_context(Libvirtd(t))


def vcpus(libvirtd: Libvirtd, name: str) -> set[str]:
    """Where a guest's vCPUs may run."""
    found = affinities(libvirtd.guest_pid(name))
    return {cpus for thread, cpus in found.items() if thread.startswith("CPU ")}


def wait_vcpus(libvirtd: Libvirtd, name: str, cpus: str) -> None:
    wait_for(f"{name} on {cpus}", lambda: vcpus(libvirtd, name) == {cpus})


def test_started_placed_verified_undone(pair: tuple[Sandbox, Libvirtd]) -> None:
    t, libvirtd = pair
    t.switch("dedicated")
    libvirtd.start_guest("web1")
    wait_vcpus(libvirtd, "web1", "1")
    wait_for("held", lambda: t.verify() and "dedicated on node 0" in t.verify_lines)
    assert "device web1: 'vm_pinning' = 'dedicated on node 0: vCPU 0 on 1" in t.verify_lines
    with t.log_of() as lines:
        t.switch("same")
    assert not [line for line in lines if "guest web1" in line], "what both want is left"
    assert vcpus(libvirtd, "web1") == {"1"}
    t.switch("other")
    wait_vcpus(libvirtd, "web1", "0-1")
    t.switch("dedicated")
    libvirtd.start_guest("web2")
    t.kill9()
    t.start()
    assert not t.verify(), "web2 floats: there is one CPU to dedicate"
    failed = [line for line in t.verify_lines.splitlines() if "failed" in line]
    assert len(failed) == 1
    assert "device web2:" in failed[0]
    assert "expected 'policy=dedicated' (not granted: " in failed[0]
    assert "device web1: 'vm_pinning' = 'dedicated on node 0: vCPU 0 on 1" in t.verify_lines
    t.off()
    for name in ("web1", "web2"):
        assert vcpus(libvirtd, name) == {"0-1"}
    assert "Traceback" not in t.log()


def lines_of(t: Sandbox) -> str:
    """What verify says, whether all is as it should be or not."""
    t.verify()
    return t.verify_lines


def reads(t: Sandbox) -> int:
    """How often TuneD has read a file."""
    text = t.run(["sh", "-c", "cat /proc/$(pgrep -o -x tuned)/io"]).stdout
    return int(text.split("syscr: ")[1].split()[0])


def test_nothing_is_looked_at_while_nothing_happens(pair: tuple[Sandbox, Libvirtd]) -> None:
    t, libvirtd = pair
    t.switch("both")
    for name in ("web1", "web2"):
        libvirtd.start_guest(name)
        wait_for("held", lambda name=name: f"device {name}: 'vm_pinning'" in lines_of(t))  # type: ignore[misc]
    before = reads(t)
    time.sleep(3)
    assert reads(t) - before < 300, "a worker that goes round and round reads thousands"


def test_devices_and_instances(pair: tuple[Sandbox, Libvirtd]) -> None:
    t, libvirtd = pair
    t.switch("web")
    assert t.verify(), "an instance without guests verifies"
    uuid = libvirtd.start_guest("web1")
    libvirtd.start_guest("db1")
    wait_vcpus(libvirtd, "web1", "1")
    assert vcpus(libvirtd, "db1") == {"0-1"}
    libvirtd.stop_guest("web1")
    t.switch("two")
    libvirtd.start_guest("db2")
    libvirtd.start_guest("web2")
    wait_vcpus(libvirtd, "web2", "1")
    assert vcpus(libvirtd, "db2") == {"0-1"}
    assert uuid not in t.log()
    if t.version != "2.20":
        assert instance(
            t, "instance_create", "vm_pinning", "free", {"policy": "none", "devices": "x"}
        )
        assert instance(t, "instance_acquire_devices", "web2", "free")
        wait_vcpus(libvirtd, "web2", "0-1")
        assert instance(t, "instance_destroy", "free")
        wait_vcpus(libvirtd, "web2", "1")
    t.off()
    assert vcpus(libvirtd, "web2") == {"0-1"}
    assert "Traceback" not in t.log()
    assert "BUG" not in t.log()


def instance(t: Sandbox, method: str, *arguments: Any) -> bool:
    done, why = t.call(method, *arguments)[:2]
    assert done, str(why)
    return bool(done)


def test_a_bad_option_applies_nothing_and_is_said(pair: tuple[Sandbox, Libvirtd]) -> None:
    t, libvirtd = pair
    t.switch("bad")
    libvirtd.start_guest("web1")
    assert not t.verify()
    assert "option 'policy': 'nodes' is not valid: one of node, dedicated, none" in t.verify_lines
    assert "option 'smtt'" in t.verify_lines
    assert t.read("/proc/sys/vm/swappiness") == "11"
    assert vcpus(libvirtd, "web1") == {"0-1"}
    t.switch("observe")
    assert t.verify()
    assert "observed only, would be" in t.verify_lines
    assert vcpus(libvirtd, "web1") == {"0-1"}


def test_a_hung_libvirtd_does_not_hang_tuned(pair: tuple[Sandbox, Libvirtd]) -> None:
    t, libvirtd = pair
    t.switch("dedicated")
    libvirtd.start_guest("web1")
    wait_vcpus(libvirtd, "web1", "1")
    with libvirtd.frozen():
        time.sleep(0.5)
        assert seconds(lambda: t.call("is_running")) < 1
        assert seconds(t.verify) < 1
        assert seconds(lambda: t.call("active_profile")) < 1
        assert t.terminate() < 15
        assert vcpus(libvirtd, "web1") == {"1"}
    t.run(["tuned-virt", "restore"])
    assert vcpus(libvirtd, "web1") == {"0-1"}


def seconds(call: Callable[[], Any]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_without_libvirt_the_rest_of_the_profile_works(
    tuned: Callable[..., Sandbox], version: str
) -> None:
    t = tuned(version, profiles={"mixed": PROFILES["dedicated"] + "[sysctl]\nvm.swappiness=12\n"})
    t.switch("mixed")
    assert t.read("/proc/sys/vm/swappiness") == "12"
    assert t.verify()
    assert "verify: note: vm_pinning: guests are not managed: there is no libvirt" in t.verify_lines
    assert t.log().count("libvirt is unavailable") == 1
    with Libvirtd(t) as libvirtd:
        wait_for("connected", lambda: "libvirt is available again" in t.log(), 15)
        libvirtd.start_guest("web1")
        wait_vcpus(libvirtd, "web1", "1")
        t.off()
        assert vcpus(libvirtd, "web1") == {"0-1"}


def test_off_without_libvirt_promises_nothing(tuned: Callable[..., Sandbox], version: str) -> None:
    t = tuned(version, profiles={"mixed": PROFILES["dedicated"]})
    t.switch("mixed")
    t.off()
    assert "it is restored as soon as libvirt answers" not in t.log()


@pytest.fixture
def balancing() -> Iterator[Path]:
    """kernel.numa_balancing, on for the length of a test."""
    file = Path("/proc/sys") / BALANCING.replace(".", "/")
    before = file.read_text()
    file.write_text("1")
    yield file
    file.write_text(before)


def test_numa_balancing_that_tuneds_own_plugin_sets_in_the_next_profile(
    balancing: Path, pair: tuple[Sandbox, Libvirtd]
) -> None:
    """TuneD's sysctl must not take ours for what was there before."""
    t, libvirtd = pair
    libvirtd.start_guest("web1")
    t.switch("unbalanced")
    wait_for("it is off", lambda: balancing.read_text() == "0\n")
    t.switch("balanced")
    assert balancing.read_text() == "2\n"
    wait_vcpus(libvirtd, "web1", "1")
    t.off()
    assert balancing.read_text() == "1\n"
    t.switch("contrary")
    wait_for("it is off", lambda: balancing.read_text() == "0\n")
    assert not t.verify()
    assert f"[sysctl] sets {balancing} to '2', and [vm_pinning] sets it to '0'" in t.verify_lines
    t.off()
    assert balancing.read_text() == "1\n"
