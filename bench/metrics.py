# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a collection of metrics takes; bench.scrape has its series and bytes.

    python -m bench.metrics [--guests 0 30 1000]

Guests are made up, of four vCPUs each on a host of two nodes, all held by vm_pinning, in a folder
that stands for /proc and /sys. What a kernel takes to walk a guest's page tables for numa_maps is
not in it; libvirt, TuneD and the audit are not asked.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from tests.unit.proc_guests import FakeProc
from tuned_virt.cli import metrics_output
from tuned_virt.cli.metrics_collect import MetricsCollection
from tuned_virt.cli.metrics_input import COLLECTORS
from tuned_virt.core.options import SYSTEM
from tuned_virt.placement import Placement, PlacementKind
from tuned_virt.plugins.vm_pinning import held_placements
from tuned_virt.plugins.vm_pinning.held_placements import HeldPlacement

VCPUS = 4
RUNS = 5
SECONDS = 60.0

OF_THE_KERNEL = ("guests", "ksm", "hugepages")
"""Collectors that read the kernel alone."""


@dataclass(frozen=True)
class Collected:
    """What one collection gave, and the seconds of wall and CPU time that several took."""

    content: bytes
    wall: list[float]
    cpu: list[float]


def machine(folder: Path, guests: int) -> FakeProc:
    """A host with so many guests."""
    fs = FakeProc(folder)
    (folder / "proc").mkdir()
    for node in range(2):
        fs.node(node, cpus_of(node))
        for size in ("2048kB", "1048576kB"):
            for name in ("nr", "free", "surplus"):
                top = f"/sys/devices/system/node/node{node}/hugepages/hugepages-{size}"
                fs.put(f"{top}/{name}_hugepages", "16")
    for name in ("run", "pages_sharing", "pages_shared", "general_profit", "full_scans"):
        fs.put(f"/sys/kernel/mm/ksm/{name}", "1")
    for number in range(guests):
        pid, vcpus = pid_of(number), dict.fromkeys(range(VCPUS), cpus_of(number % 2))
        pages = "kernelpagesize_kB=4 N0=90000 N1=9000"
        fs.guest(pid, f"guest-{number:04d}", vcpus, pages, uuid_of(number))
        fs.put(f"/proc/{pid}/ksm_stat", "ksm_merging_pages 7\nksm_process_profit 5\n")
        for vcpu in range(VCPUS):
            fs.waited(pid, pid + 1 + vcpu, 123_456_789_012)
    return fs


def pid_of(number: int) -> int:
    """Of a guest's process; its vCPUs' threads follow."""
    return 10_000 + 10 * number


def uuid_of(number: int) -> str:
    """Of a guest."""
    return f"8a7c0000-0000-4000-8000-{number:012d}"


def cpus_of(node: int) -> str:
    """Of a node."""
    return f"{32 * node}-{32 * node + 31}"


def held(number: int) -> HeldPlacement:
    """Where vm_pinning has put a guest: on one node."""
    name, uuid, node = f"guest-{number:04d}", uuid_of(number), number % 2
    vcpus = dict.fromkeys(range(VCPUS), cpus_of(node))
    placement = Placement(
        *(name, uuid, PlacementKind.SHARED, (node,), vcpus, "0-7", {}, None, "fits")
    )
    return HeldPlacement(f"{uuid}/1", uuid, name, name, pid_of(number), placement)


def collected(folder: Path, guests: int, runs: int = 1) -> Collected:
    """Collect so many times from a host with so many guests."""
    known = {SYSTEM: [held(number) for number in range(guests)]}
    collectors = [one for one in COLLECTORS if one.name in OF_THE_KERNEL]
    collection = MetricsCollection(machine(folder, guests), collectors, None)
    wall, cpu = [], []
    with (
        mock.patch.object(held_placements, "everything", lambda: known),
        mock.patch.object(FakeProc, "sees_all_processes", lambda _: True),
    ):
        for _ in range(runs):
            began, used = time.perf_counter(), time.process_time()
            samples, _ = collection.collect(SECONDS)
            content = metrics_output.text(samples)
            wall.append(time.perf_counter() - began)
            cpu.append(time.process_time() - used)
    return Collected(content, wall, cpu)


def main() -> None:
    """Print a line for each number of guests."""
    parser = argparse.ArgumentParser(description="Time collections of metrics.")
    parser.add_argument("--guests", type=int, nargs="+", default=[0, 30, 1000])
    for guests in parser.parse_args().guests:
        with tempfile.TemporaryDirectory() as folder:
            found = collected(Path(folder), guests, RUNS)
        wall, cpu = statistics.median(found.wall), statistics.median(found.cpu)
        print(f"{guests:5} guests: {wall:6.2f} s, {cpu:.2f} s of CPU")


if __name__ == "__main__":
    main()
