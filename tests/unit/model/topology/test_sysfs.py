# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tuned_virt.kernel.files import KernelFS
from tuned_virt.model import topology


def test_nodes(tmp_path: Path) -> None:
    for node, total in ((0, 100), (10, 0), (2, 50)):
        folder = tmp_path / f"sys/devices/system/node/node{node}"
        folder.mkdir(parents=True)
        (folder / "meminfo").write_text(
            f"Node {node} MemTotal:       {total} kB\nNode {node} MemFree: 7 kB\n"
        )
        (folder / "cpulist").write_text("0-3,8\n" if node == 0 else "\n")
        (folder / "distance").write_text("10 21 32\n")
    found = topology.nodes(KernelFS(tmp_path))
    assert [node.id for node in found] == [0, 2, 10]
    assert found[0] == topology.MemoryNode(0, "0-3,8", 100, 7, (10, 21, 32))
    (tmp_path / "sys/devices/system/node/has_memory").write_text("0,2\n")
    assert topology.memory_nodes(KernelFS(tmp_path)) == {0, 2}


def test_a_kernel_without_numa(tmp_path: Path) -> None:
    assert topology.nodes(KernelFS(tmp_path)) == []
    assert topology.meminfo(KernelFS(tmp_path)) == {}


def test_cpus_of_a_node_that_is_offline_are_said(tmp_path: Path) -> None:
    cpus, nodes = tmp_path / "sys/devices/system/cpu", tmp_path / "sys/devices/system/node"
    for cpu in range(4):
        (cpus / f"cpu{cpu}").mkdir(parents=True)
    (cpus / "online").write_text("0-2\n")
    (nodes / "node1").mkdir(parents=True)
    (nodes / "node1/cpulist").write_text("1\n")
    host = topology.read(KernelFS(tmp_path))
    assert set(host.cpus) == {1}
    assert host.notes == ("2 online CPUs are in no NUMA node: left out",)


def clocked(folder: Path, *clocks: int) -> list[int]:
    """The capacities of CPUs whose highest clocks, in kHz, are these."""
    cpus = folder / "sys/devices/system/cpu"
    for cpu, clock in enumerate(clocks):
        (cpus / f"cpu{cpu}/cpufreq").mkdir(parents=True)
        (cpus / f"cpu{cpu}/cpufreq/cpuinfo_max_freq").write_text(f"{clock}\n")
    (cpus / "online").write_text(f"0-{len(clocks) - 1}\n")
    return [one.capacity for _, one in sorted(topology.read(KernelFS(folder)).cpus.items())]


def test_dense_cores_are_slower_ones(tmp_path: Path) -> None:
    """Ryzen AI 9 HX 370: Zen 5 beside Zen 5c, of which the kernel says nothing but their clock."""
    assert clocked(tmp_path, 5_157_000, 5_157_000, 3_300_000) == [1024, 1024, 655]


def test_cores_with_a_cache_on_top_are_not(tmp_path: Path) -> None:
    """Ryzen 9 7950X3D, whose cores with 3D V-Cache reach a lower clock."""
    assert clocked(tmp_path, 5_250_000, 5_758_000) == [1024, 1024]


CARD = "devices/pci0000:3a/0000:3a:00.0/0000:3b:00.4"
"""Of /sys; its firmware says node 1."""


def with_card(tmp_path: Path, bus: str, devices: Mapping[str, str]) -> None:
    """A machine with the card, and devices of a bus by the folder that each is in."""
    clocked(tmp_path, 1)
    sys = tmp_path / "sys"
    (sys / "bus/pci/devices/0000:3b:00.4").mkdir(parents=True)
    (sys / "bus/pci/devices/0000:3b:00.4/numa_node").write_text("1\n")
    listed = sys / f"bus/{bus}/devices"
    listed.mkdir(parents=True)
    for name, above in devices.items():
        (sys / above / name).mkdir(parents=True)
        (listed / name).symlink_to(sys / above / name)


def test_mediated_devices_are_where_their_card_is(tmp_path: Path) -> None:
    """NVIDIA vGPU: the node is in the path of the link."""
    uuid = "c2177883-f1bb-47f0-914d-32a22e3a880{}"
    devices = {uuid.format(1): CARD, uuid.format(2): "devices/virtual/mtty/mtty"}
    with_card(tmp_path, "mdev", devices)
    assert topology.read(KernelFS(tmp_path)).devices == {
        "0000:3b:00.4": 1,
        "c2177883-f1bb-47f0-914d-32a22e3a8801": 1,
    }


def test_vdpa_devices_are_where_their_card_is(tmp_path: Path) -> None:
    """A SmartNIC's function behind an auxiliary device, and the kernel's simulator; the character
    device is a child of the vDPA device."""
    devices = {"vdpa0": f"{CARD}/mlx5_core.sf.2", "vdpa1": "devices/vdpasim_net_mgmtdev"}
    with_card(tmp_path, "vdpa", devices)
    for name, above in devices.items():
        for child in (f"vhost-vdpa-{name[-1]}", "power"):
            (tmp_path / "sys" / above / name / child).mkdir()
    assert topology.read(KernelFS(tmp_path)).devices == {"0000:3b:00.4": 1, "vhost-vdpa-0": 1}
