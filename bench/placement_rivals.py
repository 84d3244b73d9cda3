# SPDX-License-Identifier: GPL-2.0-or-later
"""What numad and virt-install choose: the programs themselves, asked about made-up machines.

`numad -w` advises from /sys/devices/system/{node,cpu}, /proc/meminfo and /proc/stat, of which it
takes the idle ticks of two seconds: so it runs where those are of an instance, in namespaces of its
own. Which CPUs of the advised nodes a vCPU then runs on is the kernel's choice, and a model here:
each on the node that has most CPUs idle.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Host

RATE = 112
"""Idle ticks a second of a free CPU, of 100: numad's clock runs on while it reads. More than there
are CPUs it cuts off."""

ATTEMPTS = 10

ENTER = """
for path in /sys/devices/system/node /sys/devices/system/cpu /proc/meminfo /proc/stat; do
    mount --bind "$0/${path##*/}" "$path" || exit
done
mount -t tmpfs none /run && mount -t tmpfs none /var/log && numad -v -w "$1" &
sleep 1.2
cat "$0/later" > "$0/stat"
wait $!
cat /var/log/numad.log >&2
"""
"""In the namespace: no daemon is asked (/run), and its log is read for what it saw."""


def spread(cpus: list[int], vcpus: int, nodes: Sequence[int]) -> list[int]:
    """vCPUs by node as the scheduler spreads them over these nodes; takes them from `cpus`."""
    counts = [0] * len(cpus)
    for _ in range(vcpus):
        at = max(nodes, key=lambda node: cpus[node])
        cpus[at] -= 1
        counts[at] += 1
    return counts


def numad(host: Host, guests: list[Guest]) -> list[list[int]]:
    """vCPUs by node where each guest, one after the other, gets what `numad -w` advises."""
    cpus = [len(node.cpus) for node in host.nodes]
    memory = [node.memory for node in host.nodes]
    found = []
    with tempfile.TemporaryDirectory() as name:
        _machine(Path(name), host)
        for one in guests:
            _now(Path(name), host, cpus, memory)
            nodes = _advice(Path(name), one, cpus)
            counts = spread(cpus, one.vcpus, nodes)
            for at, count in enumerate(counts):
                memory[at] = max(memory[at] - count * one.memory // one.vcpus, 0)
            found.append(counts)
    return found


def _advice(root: Path, guest: Guest, cpus: list[int]) -> list[int]:
    """The nodes that numad names, once it has seen the CPUs free that there are: on a loaded
    machine its two seconds grow, and the CPUs shrink. Raises RuntimeError.
    """
    request = f"{guest.vcpus}:{guest.memory >> 10}"
    words = ["unshare", "--mount", "--ipc", "sh", "-c", ENTER, str(root), request]
    before = (root / "stat").read_text()
    wanted = sorted(100 * max(free, 0) for free in cpus)
    for _ in range(ATTEMPTS):
        (root / "stat").write_text(before)
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        last = re.findall(r"CPUs_free +(\d+)", done.stderr)[-len(cpus) :]
        seen = sorted(map(int, last))
        if len(seen) == len(wanted) and all(
            free <= saw < free + 100 for saw, free in zip(seen, wanted)
        ):
            return sorted(cpuset.parse(done.stdout.strip()))
    raise RuntimeError(f"numad saw {seen} hundredths of CPUs free, there are {wanted}")


def _machine(root: Path, host: Host) -> None:
    """What does not change: CPUs, nodes, distances."""
    last = max(host.cpus)
    siblings = root / "cpu/cpu0/topology/thread_siblings"
    siblings.parent.mkdir(parents=True)
    siblings.write_text("1\n")
    for name in ("possible", "online"):
        (root / "cpu" / name).write_text(f"0-{last}\n")
    for node in host.nodes:
        own = root / f"node/node{node.id}"
        own.mkdir(parents=True)
        (own / "cpulist").write_text(cpuset.text(node.cpus) + "\n")
        (own / "distance").write_text(" ".join(map(str, node.distances.values())) + "\n")
    (root / "meminfo").write_text("Hugepagesize: 2048 kB\n")


def _now(root: Path, host: Host, cpus: list[int], memory: list[int]) -> None:
    """Free memory, and idle ticks before and after numad's two seconds."""
    idle = {}
    for node, free, left in zip(host.nodes, cpus, memory):
        (root / f"node/node{node.id}/meminfo").write_text(
            f"Node {node.id} MemTotal: {node.memory} kB\nNode {node.id} MemFree: {left} kB\n"
            f"Node {node.id} Inactive(file): 0 kB\n"
        )
        for number, cpu in enumerate(sorted(node.cpus)):
            idle[cpu] = 2 * RATE * (number < free)
    for name, known in (("stat", {}), ("later", idle)):
        lines = [f"cpu{cpu} 0 0 0 {known.get(cpu, 0)} 0 0 0 0 0 0" for cpu in sorted(host.cpus)]
        (root / name).write_text("\n".join(["cpu 0 0 0 0 0 0 0 0 0 0", *lines, ""]))


def unpinned(host: Host, guests: list[Guest]) -> list[list[int]]:
    """As virt-install leaves them: the scheduler spreads vCPUs over all idle CPUs."""
    cpus = [len(node.cpus) for node in host.nodes]
    return [spread(cpus, one.vcpus, range(len(cpus))) for one in guests]


def virt_install(vcpus: str) -> str:
    """The <vcpu> element that `virt-install --vcpus VCPUS` writes."""
    words = ["virt-install", "--print-xml", "--connect", "test:///default", "--name", "a"]
    words += ["--memory", "1024", "--disk", "none", "--osinfo", "generic", "--import"]
    done = subprocess.run([*words, "--vcpus", vcpus], capture_output=True, text=True, check=True)
    found = ElementTree.fromstring(done.stdout).find("vcpu")  # noqa: S314 - virt-install's own
    return "" if found is None else ElementTree.tostring(found, encoding="unicode").strip()


def missing() -> str:
    """Why these programs cannot be asked here, or nothing."""
    if os.geteuid() != 0:
        return "numad is asked in a mount namespace, which needs root"
    absent = [name for name in ("numad", "virt-install") if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)} (scripts/dependencies bench)" if absent else ""
