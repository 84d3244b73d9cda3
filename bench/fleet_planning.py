# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a fleet's plan and audit take, from snapshots alone: hosts a minute, and memory.

    build/venv/bin/python -m bench.fleet_planning [--hosts 1000] [--guests 30] [--jobs 2]

Aim: at least 1,000 hosts of 30 guests a minute on two CPUs, in memory that does not grow with the
number of hosts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests import snapshots
from tests.unit.machines import GIB, machine
from tuned_virt.cli import json_output, planning_input, snapshot_file
from tuned_virt.cli.collected import AuditSources, Collected, GuestDocument
from tuned_virt.cli.planning_input import DescribedGuest
from tuned_virt.frozen_dataclasses import replace
from tuned_virt.model.host_facts import Fact, HostFacts, NetworkLink
from tuned_virt.model.pins import Pins

DATA = Path(__file__).parents[1] / "tests/data/audit"
KINDS = ("database", "linux-default", "vdi", "windows-desktop", "nfv", "gaming", "limits")
AIM = 1000
"""Hosts of 30 guests a minute."""


def _document(number: int, host: int) -> str:
    """A guest's XML as libvirt writes it, of one of a few kinds."""
    text = (DATA / f"{KINDS[number % len(KINDS)]}.xml").read_text()
    own = f"<name>guest-{number}</name><uuid>00000000-0000-4000-{host:04x}-{number:012}</uuid>"
    text = re.sub("<uuid>.*?</uuid>", "", text)
    return re.sub("<name>.*?</name>", own, text, count=1)


def write_host(number: int, guests: int) -> str:
    """A host's snapshot as a line: 64 CPUs in two nodes, guests as they run and as configured."""
    host = machine(nodes=2, cores=16, threads=2, llcs=2, gib=384)
    chance = random.Random(number)  # noqa: S311
    described, documents = [], []
    for at in range(guests):
        xml, node = _document(at, number), chance.randrange(2)
        cpus = f"{node * 32}-{node * 32 + 31}"
        now = Pins(dict.fromkeys(range(2), cpus), cpus)
        described.append((f"guest-{at}", DescribedGuest(xml, now, {node: GIB})))
        documents.append(GuestDocument(f"guest-{at}", xml))
    known = planning_input.of(host, described)
    links = {"br0": NetworkLink(1500), "eth0": NetworkLink(9000, "br0")}
    facts = HostFacts(kvm=Fact(True, ""), thp=Fact("always", ""), links=Fact(links, ""))
    audit = Fact(AuditSources(host, facts, tuple(documents)), "")
    found: Collected = replace(snapshots.collected(known), host=f"node{number}", audit=audit)
    return json.dumps(json_output.document("snapshot", snapshot_file.content(found)))


def _write(folder: Path, hosts: int, guests: int) -> Path:
    """JSON lines; few hosts are made, which is slow, and repeated under other names."""
    made = [write_host(number, guests) for number in range(min(hosts, 16))]
    file = folder / "fleet.jsonl"
    with file.open("w") as opened:
        for number in range(hosts):
            name = f'"host_name": "node{number}"'
            opened.write(re.sub(r'"host_name": "\w+"', name, made[number % len(made)]) + "\n")
    return file


def _measured(words: list[str], hosts: int, jobs: int) -> None:
    """Run a command over the fleet; its seconds, and the most memory that a process of it had.

    The machine may be busy: beside the clock is what its CPU time comes to on that many CPUs.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        made = subprocess.Popen([sys.executable, "-m", "tuned_virt", *words], stdout=output)
        _, status, used = os.wait4(made.pid, 0)
        output.seek(0)
        lines = sum(1 for _ in output)
    seconds, cpu = time.monotonic() - started, used.ru_utime + used.ru_stime
    rate, alone = 60 * hosts / seconds, 60 * hosts * jobs / cpu
    verdict = "" if max(rate, alone) >= AIM else f", BELOW {AIM}"
    print(
        f"{words[0]:6} {' '.join(words[5:]):10} {seconds:6.1f} s, {cpu:5.1f} s of CPU:"
        f" {rate:5.0f} hosts a minute, {alone:5.0f} on CPUs of their own{verdict};"
        f" {used.ru_maxrss >> 10} MiB a process at most; {lines} lines,"
        f" exit status {os.waitstatus_to_exitcode(status)}",
        flush=True,
    )


def main() -> int:
    """Make a fleet, plan it, audit it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--guests", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = _write(Path(folder), options.hosts, options.guests)
        size = file.stat().st_size >> 20
        print(f"{options.hosts} hosts of {options.guests} guests: {size} MiB of snapshots")
        for command in ("plan", "audit"):
            words = [command, "--snapshots", str(file), "--jobs", str(options.jobs)]
            _measured(words, options.hosts, options.jobs)
            _measured([*words, "--summary"], options.hosts, options.jobs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
