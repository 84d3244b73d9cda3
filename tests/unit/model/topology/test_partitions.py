# SPDX-License-Identifier: GPL-2.0-or-later
"""Cpusets of libvirt's partitions, in both versions of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuned_virt.kernel.files import KernelFS
from tuned_virt.model import topology
from tuned_virt.model.guest import read_guest
from tuned_virt.model.topology import partitions

ONLINE = range(16)
ALL = frozenset(ONLINE)


def read(folder: Path, files: dict[str, str]) -> dict[str, frozenset[int]]:
    for name, text in files.items():
        file = folder / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return partitions.read(KernelFS(folder), ONLINE)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, {}),
        ({"cpuset.cpus.effective": "0-15", "machine.slice/cpuset.cpus.effective": "0-15"}, {}),
        (
            {
                "cpuset.cpus.effective": "0-15",
                "machine.slice/cpuset.cpus": "4-20",
                "machine.slice/cpuset.cpus.effective": "4-15",
                "system.slice/cpuset.cpus.effective": "0-3",
                "user.slice/user-1.slice/cpuset.cpus.effective": "0-3",
            },
            {"/": ALL, "/machine": frozenset(range(4, 16))},
        ),
        (
            {
                "machine.slice/machine-rt.slice/cpuset.cpus.effective": "8-15",
                "machine.slice/machine-not\\x2drt.slice/cpuset.cpus.effective": "0-7",
                "machine.slice/machine-qemu\\x2d1\\x2da.scope/cpuset.cpus.effective": "1",
                "web.slice/cpuset.cpus.effective": "",
            },
            {"/machine/not-rt": frozenset(range(8)), "/machine/rt": frozenset(range(8, 16))},
        ),
        (
            {
                "cpuset.cpus.effective": "0-11",
                "machine.slice/cpuset.cpus.effective": "0-11",
                "rt.slice/cpuset.cpus.effective": "12-15",
                "rt.slice/cpuset.cpus.partition": "isolated",
            },
            {
                "/": frozenset(range(12)),
                "/machine": frozenset(range(12)),
                "/rt": frozenset(range(12, 16)),
            },
        ),
        (
            {
                "cpuset/cpuset.effective_cpus": "0-15",
                "cpuset/machine.slice/cpuset.cpus": "0-15",
                "cpuset/machine.slice/cpuset.effective_cpus": "2-7",
                "memory/machine.slice/memory.limit_in_bytes": "1",
            },
            {"/": ALL, "/machine": frozenset(range(2, 8))},
        ),
        (
            {"cpuset/machine/cpuset.cpus": "2-7", "cpuset/machine/rt.partition/cpuset.cpus": "6-7"},
            {"/machine": frozenset(range(2, 8)), "/machine/rt": frozenset({6, 7})},
        ),
        ({"machine.slice/cpuset.cpus.effective": "not a list"}, {}),
    ],
    ids=[
        "no groups",
        "all CPUs",
        "AllowedCPUs= of machine.slice",
        "slices below it",
        "an isolated partition takes its CPUs from the others",
        "version 1",
        "version 1 without systemd",
        "what cannot be read",
    ],
)
def test_what_groups_leave_to_guests(
    tmp_path: Path, files: dict[str, str], expected: dict[str, frozenset[int]]
) -> None:
    assert read(tmp_path, files) == expected


def test_a_partition_without_a_cpuset_has_that_of_the_group_above() -> None:
    some, rt = frozenset({1}), frozenset({2})
    sets = {"/machine": some, "/machine/rt": rt}
    asked = ("/machine", "/machine/", "/machine/rt", "/machine/rt/a", "/machine/b", "/c", "c", "/")
    assert [partitions.of(sets, one) for one in asked] == [
        some,
        some,
        rt,
        rt,
        some,
        None,
        None,
        None,
    ]
    assert partitions.of({"/": rt}, "/machine/a") == rt


def test_a_host_has_them(tmp_path: Path) -> None:
    for cpu in range(4):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "core_cpus_list").write_text(f"{cpu}\n")
    read(tmp_path, {"machine.slice/cpuset.cpus.effective": "2-7"})
    host = topology.read(KernelFS(tmp_path))
    assert host.cpusets == {"/machine": frozenset({2, 3})}
    assert (host.allowed("/machine/rt"), host.allowed("/")) == (frozenset({2, 3}), None)
    guest = "<domain type='kvm'><name>a</name><memory>1</memory>{}</domain>"
    named = "<resource><partition>/machine/rt</partition></resource>"
    found = [read_guest(guest.format(text)).partition for text in ("", named)]
    assert found == ["/machine", "/machine/rt"]
