# SPDX-License-Identifier: GPL-2.0-or-later
"""What an advice depends on, as it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuned_virt.kernel import cpuset
from tuned_virt.kernel.files import KernelFS
from tuned_virt.numad import machine
from tuned_virt.numad.advice import Node, Running

MEMINFO = (
    "Node {n} MemTotal: 8388608 kB\nNode {n} MemFree: {free} kB\nNode {n} Inactive(file): 1024 kB\n"
)


def write(root: Path, name: str, text: str) -> None:
    (root / name.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    (root / name.lstrip("/")).write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two nodes of four CPUs, of which one is isolated, and one of memory alone."""
    folder = "/sys/devices/system/node"
    write(tmp_path, f"{folder}/has_memory", "0-2\n")
    write(tmp_path, "/sys/devices/system/cpu/isolated", "7\n")
    for number, cpus, free in ((0, "0-3", 1 << 20), (1, "4-7", 2 << 20), (2, "", 4 << 20)):
        write(tmp_path, f"{folder}/node{number}/cpulist", f"{cpus}\n")
        write(tmp_path, f"{folder}/node{number}/distance", "10 20 30\n")
        write(tmp_path, f"{folder}/node{number}/meminfo", MEMINFO.format(n=number, free=free))
    return tmp_path


def core(root: Path, cpus: str) -> None:
    """CPUs that are threads of a core."""
    for cpu in cpuset.parse(cpus):
        write(root, f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", f"{cpus}\n")


def test_nodes_with_cpus_that_guests_may_use(root: Path) -> None:
    write(root, "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "8\n")
    nodes = machine.read(KernelFS(str(root)))
    assert nodes == [
        Node(0, frozenset({0, 1, 2, 3}), 1025, 0.0, {0: 10, 1: 20, 2: 30}, 4),
        Node(1, frozenset({4, 5, 6}), 2049, 0.0, {0: 10, 1: 20, 2: 30}, 3, 16),
    ]
    for cpus in ("0-1", "2-3", "4-5", "6-7"):
        core(root, cpus)
    assert [node.cores for node in machine.read(KernelFS(str(root)))] == [2, 2]


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"nohz_full": " (null)"}, {0: "0-3", 1: "4-6"}),
        ({"nohz_full": "4-6"}, {0: "0-3"}),
        ({"nohz_full": "0-6"}, {0: "0-3", 1: "4-7"}),
        ({"machine": "4-7"}, {1: "4-6"}),
        ({"machine": "7"}, {1: "7"}),
        ({"machine": "0-7"}, {0: "0-3", 1: "4-6"}),
    ],
)
def test_isolated_cpus_and_those_that_a_cpuset_keeps_from_guests_are_none(
    root: Path, files: dict[str, str], left: dict[int, str]
) -> None:
    """CPUs 7 is isolated, too; where all are, none is."""
    paths = {
        "nohz_full": "/sys/devices/system/cpu/nohz_full",
        "machine": "/sys/fs/cgroup/machine.slice/cpuset.cpus.effective",
    }
    for name, text in files.items():
        write(root, paths[name], f"{text}\n")
    nodes = machine.read(KernelFS(str(root)))
    assert {node.id: cpuset.text(node.cpus) for node in nodes} == left


def test_vcpus_count_on_the_nodes_where_they_may_run() -> None:
    """Those on an isolated CPU on none, and those that float over all by themselves."""
    nodes = [Node(n, frozenset(range(4 * n, 4 * n + 4)), 1) for n in (0, 1, 2)]
    masks = {0xF: 2, 0x10: 1, 0x0F3: 6, 0xFFF: 7, 0x8421: 5, 1 << 12: 5, 0x10F0: 1, 0: 1}
    guests = [Running(0, (mask,) * number) for mask, number in masks.items()]
    placed, floating = machine.with_guests(nodes, guests)
    assert ([node.vcpus for node in placed], floating) == ([2 + 2, 1 + 4 + 1, 0], 7 + 5)
    alone = machine.with_guests(nodes[:1], [Running(0, (0xF, 0xF))])
    assert alone == ([nodes[0]._replace(vcpus=2.0)], 0)
