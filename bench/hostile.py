# SPDX-License-Identifier: GPL-2.0-or-later
"""What hostile input costs the planner's command: each case in a process of its own.

    build/venv/bin/python -m bench.hostile

Aim: refused or done within 2 s and 200 MiB, the interpreter included.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tuned_virt.cli import main as command
from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import GuestError, read_guest
from tuned_virt.model.topology import Host, HostError
from tuned_virt.placement import parse, plan

HOST = Path(__file__).parents[1] / "tests/data/hosts/two-nodes.xml"
GUEST = (
    "<domain type='kvm'><name>g{0}</name><uuid>00000000-0000-4000-8000-{0:012}</uuid>"
    "<memory>1048576</memory><vcpu>2</vcpu>{1}</domain>"
)
SECONDS, MIB = 2.0, 200


def _guest(inside: str) -> str:
    try:
        return f"read: {read_guest(GUEST.format(1, inside)).name}"
    except GuestError as error:
        return f"refused: {str(error)[:60]}"


def _entities() -> str:
    try:
        return read_guest(LAUGHS + GUEST.format(1, "&b;")).name
    except GuestError as error:
        return f"refused: {error}"


def _pins(number: int, cpus: str) -> str:
    return f"<cputune>{f'<vcpupin vcpu=^0^ cpuset=^{cpus}^/>' * number}</cputune>".replace("^", "'")


def _guests() -> str:
    host = Host.from_xml(HOST.read_text())
    guests = [read_guest(GUEST.format(number, "")) for number in range(10_000)]
    made = plan(host, guests, parse({"policy": "dedicated"}), {})
    return f"{len(made.placements)} read and planned"


def _run(words: list[str]) -> str:
    code = command(words)
    return f"exit code {code}"


def _too_many() -> str:
    return _run(["plan", "--host", str(HOST), "--guest", *["/no/such/file"] * 10_000])


def _snapshot(text: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(text)
        file.flush()
        return _run(["plan", "--snapshot", file.name])


def _large_snapshot() -> str:
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.truncate(65 << 20)
        return _run(["plan", "--snapshot", file.name])


def _set(text: str) -> str:
    try:
        return f"{len(cpuset.parse(text))} CPUs"
    except ValueError as error:
        return f"refused: {str(error)[:60]}"


def _host() -> str:
    cpu = '<cpu id="{0}" socket_id="0" core_id="{0}" siblings="{0}"/>'
    cpus = "".join(cpu.format(number) for number in range(60_000))
    text = f'<cell id="0"><memory>1</memory><cpus>{cpus}</cpus></cell>'
    wrapped = (
        f"<capabilities><host><topology><cells>{text}</cells></topology></host></capabilities>"
    )
    try:
        return f"{len(Host.from_xml(wrapped).cpus)} CPUs"
    except HostError as error:
        return f"refused: {str(error)[:60]}"


LAUGHS = "<!DOCTYPE d [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;'>]>"

CASES: Mapping[str, Callable[[], str]] = {
    "nothing": lambda: "the interpreter alone",
    "10,000 guests": _guests,
    "10,000 guests for the command": _too_many,
    "XML 90,000 deep": lambda: _guest("<a>" * 90_000 + "</a>" * 90_000),
    "XML 49,000 deep": lambda: _guest("<a>" * 49_000 + "</a>" * 49_000),
    "XML of 5 MB": lambda: _guest(" " * 5_000_000),
    "XML of 99,000 elements": lambda: _guest("<a/>" * 98_990),
    "entities": _entities,
    "a CPU set of a million": lambda: _guest(
        "<cputune><vcpupin vcpu='0' cpuset='0-999999'/></cputune>"
    ),
    "99,000 pins of 65,536 CPUs": lambda: _guest(_pins(98_990, "0-65535")),
    "99,000 pins of CPU 65535": lambda: _guest(_pins(98_990, "65535")),
    "16 pins of 65,536 CPUs": lambda: _guest(_pins(16, "0-65535")),
    "negative numbers": lambda: _guest("<iothreads>-1</iothreads>"),
    "a list of a million CPUs": lambda: _set("0," * 1_000_000),
    "15,000 ranges of 65,536 CPUs": lambda: _set(",".join(["0-65535"] * 15_000)),
    "a host of 60,000 CPUs": _host,
    "a snapshot 100,000 deep": lambda: _snapshot("[" * 100_000),
    "a snapshot of 65 MB": _large_snapshot,
}


def measure(name: str) -> None:
    """One case, in this process: seconds, MiB at most, and what came of it."""
    begin = time.perf_counter()
    outcome = CASES[name]()
    seconds = time.perf_counter() - begin
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    verdict = "" if seconds <= SECONDS and mib <= MIB else "  MISSED"
    print(f"{name}: {seconds:.2f} s, {mib} MiB, {outcome}{verdict}")


def main(arguments: list[str]) -> int:
    """All cases, or the one that is named."""
    if arguments:
        measure(arguments[0])
        return 0
    for name in CASES:
        subprocess.run([sys.executable, "-m", "bench.hostile", name], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
