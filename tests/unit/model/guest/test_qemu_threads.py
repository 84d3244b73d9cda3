# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads, memory by node, neighbours: read from made-up kernels; and what pins mean."""

from __future__ import annotations

import mmap
import os
import re
import threading
from pathlib import Path

import pytest

from tuned_virt.kernel import migrate_pages, numa_maps
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.guest import qemu_threads
from tuned_virt.model.pins import EMULATOR, Part, Pins, Target
from tuned_virt.placement import MemoryPlacement, Placement, PlacementKind
from tuned_virt.plugins.vm_pinning import conflicts, original
from tuned_virt.plugins.vm_pinning.already_running import local_node, spread
from tuned_virt.plugins.vm_pinning.original import OriginalPins

TASKS = {
    100: ("qemu-system-x86", "0-1"),
    101: ("IO mon_iothread", "0-1"),
    102: ("CPU 0/KVM", "4"),
    103: ("CPU 10/TCG", "5"),
    104: ("IO iothread2", "1"),
}


@pytest.fixture
def fs(tmp_path: Path) -> KernelFS:
    def write(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    for task, (comm, cpus) in TASKS.items():
        write(f"proc/100/task/{task}/comm", comm + "\n")
        write(f"proc/100/task/{task}/status", f"Name:\tx\nCpus_allowed_list:\t{cpus}\n")
        write(f"proc/100/task/{task}/schedstat", "5 777 9\n")
    write("proc/100/comm", "qemu-system-x86\n")
    write("proc/100/cmdline", "qemu\0-uuid\0u1\0-name\0guest=web1\0")
    write("proc/200/comm", "numad\n")
    write("proc/200/cmdline", "numad\0")
    write(
        "proc/100/maps",
        "7f0000000000-7f0004000000 rw-p 00000000 00:00 0\n"
        "7f1000000000-7f1004000000 rw-s 00000000 00:01 9 /dev/hugepages/x\n"
        "7f2000000000-7f2000001000 rw-p 00000000 00:00 0 [heap]\n",
    )
    write(
        "proc/100/numa_maps",
        "7f0000000000 default anon=300 dirty=300 N0=200 N1=100 kernelpagesize_kB=4\n"
        "7f1000000000 default file=/dev/hugepages/x huge N1=2 kernelpagesize_kB=2048\n"
        "7f2000000000 default heap anon=1 N0=1 kernelpagesize_kB=4\n",
    )
    write("proc/100/status", "VmLck:\t 12 kB\nVmPin:\t 0 kB\n")
    write("proc/1/status", "Cpus_allowed_list:\t0-1\n")
    write("sys/devices/system/cpu/online", "0-7\n")
    write("sys/devices/system/cpu/isolated", "6-7\n")
    write("proc/sys/kernel/numa_balancing", "1\n")
    write("sys/fs/cgroup/machine.slice/cpuset.cpus", "0-3\n")
    write("etc/tuned/active_profile", "cpu-partitioning\n")
    return KernelFS(tmp_path)


def test_threads_by_role(fs: KernelFS) -> None:
    found = qemu_threads.read(fs, 100)
    assert found == {
        Target(Part.VCPU, 0): (102,),
        Target(Part.VCPU, 10): (103,),
        Target(Part.IOTHREAD, 2): (104,),
        EMULATOR: (100, 101),
    }
    where = qemu_threads.affinity(fs, 100, found)
    assert where[EMULATOR] == {100: "0-1", 101: "0-1"}
    assert qemu_threads.pins(where).vcpus == {0: "4", 10: "5"}
    assert qemu_threads.pins(where).emulator == "0-1"
    assert qemu_threads.run_delay(fs, 100, 102) == 777
    assert qemu_threads.read(fs, 999) == {}


def test_processes_by_uuid(fs: KernelFS) -> None:
    finder = qemu_threads.ThreadFinder(fs)
    assert finder.find(["u1", "u2"]) == {"u1": 100}
    twin = fs.root / "proc/300"
    twin.mkdir()
    (twin / "comm").write_text("qemu-system-x86\n")
    (twin / "cmdline").write_text("qemu\0-uuid\0u1\0")
    assert finder.find(["u1"]) == {}, "two claim it"


def test_memory_by_node(fs: KernelFS) -> None:
    areas = numa_maps.read(fs, 100)
    assert [area.huge for area in areas] == [False, True]
    assert numa_maps.by_node(areas) == {0: 800, 1: 400 + 4096}
    assert numa_maps.share({0: 30, 1: 10}, frozenset({0})) == 0.75
    assert numa_maps.share({}, frozenset({0})) is None
    assert numa_maps.locked(fs, 100) == 12


def test_neighbours_are_named(fs: KernelFS) -> None:
    notes = "\n".join(conflicts.notes(fs))
    for word in ("numad", "isolcpus=6-7", "numa_balancing", "CPUAffinity", "0-3", "ps_blacklist"):
        assert word in notes


def test_a_running_guests_own_node() -> None:
    assert local_node({0: 90, 1: 10}) == 0
    assert local_node({0: 70, 1: 30}) is None
    assert local_node({}) is None
    assert "70 % on node 0, 30 % on node 1" in spread({0: 70, 1: 30})


PLACED = Placement(
    "web1",
    "u",
    PlacementKind.DEDICATED,
    (0,),
    {0: "4", 1: "5"},
    "0-1",
    {1: "0"},
    MemoryPlacement("strict", "0"),
    "",
)
FOUND = OriginalPins(
    "uri", "u", "web1", 1, 0, 0, Pins({0: "0-7", 1: "5"}, "0-7", {1: "0-7"}), nodes="0-3"
)


def test_a_placement_in_libvirts_words() -> None:
    pins = PLACED.pins(3)
    assert pins == Pins({0: "4", 1: "5", 2: "0-1"}, "0-1", {1: "0"}, ("strict", "0"))
    assert pins.without(FOUND.pins) == Pins({0: "4", 2: "0-1"}, "0-1", {1: "0"}, ("strict", "0")), (
        "a vCPU that is there already is left"
    )


def test_the_way_back_covers_what_was_set_and_nothing_else() -> None:
    assert FOUND.back(Pins({0: "4", 2: "0-1"}, None, {}, ("strict", "0"))) == Pins(
        {0: "0-7", 2: "0-7"}, None, {}, ("strict", "0-3")
    )
    assert original.parse(FOUND.text()) == FOUND
    for bad in ("", "{}", "[]", '{"vcpus": 3}'):
        with pytest.raises(ValueError, match=r"."):
            original.parse(bad)


def test_pages_that_are_there_are_not_moved() -> None:
    length = 8 << 20
    with mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(b"x" * length)
        areas = numa_maps.read(KernelFS(), os.getpid())
        here = sorted(numa_maps.by_node(areas))
        if not here:
            pytest.skip("this kernel has no numa_maps")
        ranges = [(area.start, area.end) for area in areas]
        pace = migrate_pages.Pace(0, float("inf"), threading.Event())
        moved = migrate_pages.move(os.getpid(), ranges, here, pace)
        assert (moved.moved, moved.stayed, moved.stopped) == (0, 0, False)
        pace.stop.set()
        assert migrate_pages.move(os.getpid(), ranges, here, pace).stopped


def test_the_manuals_child_profile_spares_qemu_from_the_scheduler_plugin() -> None:
    manual = (Path(__file__).parents[4] / "docs/pinning.7.md").read_text()
    found = re.search(r"^ +ps_blacklist=(\S+)$", manual, re.MULTILINE)
    assert found
    for program in ("qemu-system-x86_64", "/usr/libexec/qemu-kvm", "/usr/bin/qemu-system-aarch64"):
        assert any(re.search(pattern, program) for pattern in found[1].split(";"))
    assert "include=virtual-host-plus,cpu-partitioning" in manual
