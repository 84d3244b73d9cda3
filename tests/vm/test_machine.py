# SPDX-License-Identifier: GPL-2.0-or-later
"""The booted machine is what the other tests in this folder take it for."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.vm.daemon import Tuned

NODES = Path("/sys/devices/system/node")
CPUS = Path("/sys/devices/system/cpu")
KSM = Path("/sys/kernel/mm/ksm")
SWAPPINESS = Path("/proc/sys/vm/swappiness")

GIB_IN_KB = 1024 * 1024


def test_kernel_is_the_one_asked_for() -> None:
    asked = re.search(r"tuned_virt_vm=([0-9.]+)", Path("/proc/cmdline").read_text())
    assert asked
    assert Path("/proc/sys/kernel/osrelease").read_text().startswith(asked[1])


@pytest.mark.parametrize(
    ("state", "nodes"), [("online", "0-4"), ("has_memory", "0-3"), ("has_cpu", "0-3")]
)
def test_four_nodes_and_one_without_memory(state: str, nodes: str) -> None:
    assert (NODES / state).read_text() == f"{nodes}\n"


@pytest.mark.parametrize(("node", "gib"), [(0, 1), (1, 1), (2, 1), (3, 6)])
def test_memory_of_the_nodes(node: int, gib: int) -> None:
    total = re.search(r"MemTotal:\s+(\d+) kB", (NODES / f"node{node}/meminfo").read_text())
    assert total
    assert 0.8 * gib * GIB_IN_KB < int(total[1]) <= gib * GIB_IN_KB


def test_two_cpus_a_node() -> None:
    lists = [(NODES / f"node{node}/cpulist").read_text().strip() for node in range(4)]
    assert lists == ["0-1", "2-3", "4-5", "6-7"]
    assert (CPUS / "online").read_text() == "0-7\n"


def test_nodes_are_near_in_pairs() -> None:
    distances = [(NODES / f"node{node}/distance").read_text().split() for node in range(4)]
    assert distances == [
        ["10", "12", "21", "21", "31"],
        ["12", "10", "21", "21", "31"],
        ["21", "21", "10", "12", "31"],
        ["21", "21", "12", "10", "31"],
    ]


def test_every_node_has_two_last_level_caches() -> None:
    shared = [(CPUS / f"cpu{cpu}/cache/index3/shared_cpu_list").read_text() for cpu in range(8)]
    assert shared == [f"{cpu}\n" for cpu in range(8)]


def test_ksm_can_be_kept_within_nodes() -> None:
    merge = KSM / "merge_across_nodes"
    assert merge.read_text() == "1\n"
    merge.write_text("0")
    assert merge.read_text() == "0\n"
    merge.write_text("1")
    assert merge.read_text() == "1\n"


@pytest.mark.parametrize("size_kb", [2048, GIB_IN_KB])
def test_every_node_has_huge_page_pools(size_kb: int) -> None:
    for node in range(4):
        pool = NODES / f"node{node}/hugepages/hugepages-{size_kb}kB/nr_hugepages"
        booted = int((node, size_kb) == (3, GIB_IN_KB))
        assert pool.read_text() == f"{booted}\n"


def test_memory_blocks_can_be_hot_plugged() -> None:
    assert Path("/sys/devices/system/memory/auto_online_blocks").exists()


def test_kernel_modules_load() -> None:
    subprocess.run(["modprobe", "scsi_debug"], check=True)
    assert Path("/sys/module/scsi_debug").exists()
    subprocess.run(["modprobe", "--remove", "scsi_debug"], check=True)


def test_system_bus_answers(system_bus: Path) -> None:
    assert system_bus.is_socket()
    call = ["dbus-send", "--system", "--print-reply", "--dest=org.freedesktop.DBus", "/"]
    subprocess.run([*call, "org.freedesktop.DBus.ListNames"], check=True)


def test_tuned_applies_and_takes_back_a_stock_profile(tuned: Tuned) -> None:
    before = SWAPPINESS.read_text()
    tuned.switch("virtual-host")
    assert SWAPPINESS.read_text() != before
    tuned.off()
    assert SWAPPINESS.read_text() == before
    assert tuned.call("active_profile") == ""
