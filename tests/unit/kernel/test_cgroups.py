# SPDX-License-Identifier: GPL-2.0-or-later
"""Pressure and throttling of a guest's control group, in both versions; why there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.proc_guests import FakeProc
from tuned_virt.kernel import cgroups

SCOPE = "/machine.slice/machine-qemu\\x2d1\\x2dweb1.scope"
V2 = "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = (
    "31 1 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "32 1 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)
HYBRID = V1 + "33 1 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
PRESSED = (
    "some avg10=1.50 avg60=2.00 avg300=0.10 total=9\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
)


@pytest.fixture
def fs(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


def libvirts(fs: FakeProc) -> None:
    """A guest of libvirt under systemd with version 2: vCPU 0 has a quota."""
    fs.put("/proc/self/mountinfo", V2)
    fs.put("/proc/7/cgroup", f"0::{SCOPE}/libvirt/emulator\n")
    fs.put("/proc/7/task/7/cgroup", f"0::{SCOPE}/libvirt/emulator\n")
    fs.put("/proc/7/task/8/cgroup", f"0::{SCOPE}/libvirt/vcpu0\n")
    top = f"/sys/fs/cgroup{SCOPE}"
    fs.put(f"{top}/cpu.pressure", PRESSED)
    fs.put(f"{top}/memory.pressure", PRESSED)
    fs.put(f"{top}/cpu.stat", "usage_usec 5\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n")
    text = "usage_usec 5\nnr_periods 40\nnr_throttled 30\nthrottled_usec 2500000\n"
    fs.put(f"{top}/libvirt/vcpu0/cpu.stat", text)


def test_pressure_is_of_the_guests_own_group(fs: FakeProc) -> None:
    libvirts(fs)
    found, error = cgroups.pressures(fs, 7)
    assert error == ""
    assert [(one.resource, one.share) for one in found] == [
        ("cpu", "some"), ("cpu", "full"), ("memory", "some"), ("memory", "full"),
    ]  # fmt: skip
    assert (found[0].avg10, found[0].avg60, found[0].avg300) == (1.5, 2.0, 0.1)
    assert cgroups.own_path(fs, 7) == SCOPE


def test_throttling_is_of_each_part_with_a_quota(fs: FakeProc) -> None:
    libvirts(fs)
    [one], error = cgroups.throttling(fs, 7, [7, 8])
    assert (one.cgroup, one.periods, one.throttled) == (f"{SCOPE}/libvirt/vcpu0", 40, 30)
    assert (one.throttled_s, error) == (2.5, "")


def test_throttling_in_version_1(fs: FakeProc) -> None:
    """libvirt without systemd: /machine/web1.libvirt-qemu/vcpu0; nanoseconds."""
    fs.put("/proc/self/mountinfo", V1)
    path = "/machine/web1.libvirt-qemu"
    fs.put("/proc/7/cgroup", f"4:memory:{path}\n3:cpuacct,cpu:{path}/emulator\n")
    fs.put("/proc/7/task/8/cgroup", f"3:cpuacct,cpu:{path}/vcpu0\n")
    text = "nr_periods 4\nnr_throttled 3\nthrottled_time 1500000000\n"
    fs.put(f"/sys/fs/cgroup/cpu,cpuacct{path}/cpu.stat", text)
    [one], error = cgroups.throttling(fs, 7, [8])
    assert (one.cgroup, one.throttled, one.throttled_s, error) == (path, 3, 1.5, "")
    assert cgroups.own_path(fs, 7) == path
    assert cgroups.pressures(fs, 7) == ([], cgroups.VERSION_1)


@pytest.mark.parametrize(
    ("mounts", "group", "why"),
    [
        (V1, "3:cpu,cpuacct:/a\n", cgroups.VERSION_1),
        (HYBRID, "3:cpu,cpuacct:/a\n0::/\n", cgroups.VERSION_1),
        (V2, "0::/machine.slice/a.scope\n", cgroups.NO_PSI),
        (V2, "0::/\n", cgroups.NO_GROUP),
        ("", "", cgroups.VERSION_1),
    ],
)
def test_why_there_is_no_pressure(fs: FakeProc, mounts: str, group: str, why: str) -> None:
    """Never that of the whole host, which the root group has."""
    fs.put("/proc/self/mountinfo", mounts)
    fs.put("/proc/7/cgroup", group)
    for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        fs.put(f"{top}/cpu.pressure", PRESSED)
    assert cgroups.pressures(fs, 7) == ([], why)


def test_what_cannot_be_read_is_said(fs: FakeProc) -> None:
    libvirts(fs)
    fs.denied = {f"/sys/fs/cgroup{SCOPE}/memory.pressure", "/proc/7/task/8/cgroup"}
    assert "memory.pressure: Permission denied" in cgroups.pressures(fs, 7)[1]
    assert cgroups.throttling(fs, 7, [7, 8])[0] == []
    assert "cannot read /proc/7/task/8/cgroup" in cgroups.throttling(fs, 7, [7, 8])[1]


def test_no_cpu_controller_and_no_quota_are_two_things(fs: FakeProc) -> None:
    fs.put("/proc/self/mountinfo", V2)
    fs.put("/proc/7/task/7/cgroup", "0::/user.slice/x\n")
    assert cgroups.throttling(fs, 7, [7]) == ([], "")
    for file in ("cgroup", "task/7/cgroup"):
        fs.put(f"/proc/7/{file}", "0::/\n")
    assert cgroups.throttling(fs, 7, [7]) == ([], ""), "the root group has no quota"
    assert cgroups.own_path(fs, 7) == ""
    fs.put("/proc/self/mountinfo", "")
    assert cgroups.throttling(fs, 7, [7]) == ([], cgroups.NO_CPU)
