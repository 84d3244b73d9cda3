# SPDX-License-Identifier: GPL-2.0-or-later
"""What an advice depends on, as it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuned_virt.core.state_file import Damaged, boot_id
from tuned_virt.kernel.files import KernelFS
from tuned_virt.numad import machine
from tuned_virt.numad.advice import LASTS, Advised

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


def place(folder: Path, *placements: dict[str, Any]) -> None:
    """Guests as vm_pinning writes them down."""
    guests = {"qemu:///system": [{"placement": one} for one in placements]}
    write(folder, "vm_pinning.json", json.dumps({"boot_id": boot_id(), "guests": guests}))


def test_nodes_with_cpus_and_the_vcpus_that_are_placed_there(root: Path, tmp_path: Path) -> None:
    nodes = machine.read(KernelFS(str(root)))
    assert [(node.id, sorted(node.cpus), node.available) for node in nodes] == [
        (0, [0, 1, 2, 3], 1025),
        (1, [4, 5, 6], 2049),
    ]
    held = tmp_path / "held"
    place(held, {"vcpus": {"0": "0-3", "1": "0-3"}}, {"vcpus": {"0": "4", "1": "0-7"}})
    first, second = machine.with_guests(nodes, str(held))
    assert (first.vcpus, round(second.vcpus, 2)) == (2 + 4 / 7, 1.43)
    write(held, "vm_pinning.json", json.dumps({"boot_id": "another", "guests": {}}))
    assert [node.vcpus for node in machine.with_guests(nodes, str(held))] == [0, 0]
    assert [node.vcpus for node in machine.with_guests(nodes, str(tmp_path / "none"))] == [0, 0]
    for text in ("{", json.dumps({"boot_id": boot_id(), "guests": {"x": [{}]}})):
        write(held, "vm_pinning.json", text)
        with pytest.raises(Damaged):
            machine.with_guests(nodes, str(held))


def test_advice_is_kept_for_some_minutes(tmp_path: Path) -> None:
    record = machine.AdviceRecord(str(tmp_path / "own"))
    assert record.read(0.0) == []
    one = Advised((0, 1), 4, 8192, {0: 100, 1: 200}, {0: 1.5}, 50.0)
    with record.locked():
        record.write([one])
    assert record.read(60.0) == [one]
    assert record.read(50.0 + LASTS) == []
    (tmp_path / "own/numad.json").write_text("{}")
    assert record.read(60.0) == []
