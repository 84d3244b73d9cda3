# SPDX-License-Identifier: GPL-2.0-or-later
"""What bench/benefit.py runs inside the booted machine: the guests, started and placed in each way.

    python -m bench.benefit_guests ROUNDS [LOAD…]

A line of JSON for each step goes to the folder of the boot's results.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tests import debian
from tests.sandbox import wait_for
from tests.vm import machine, program
from tests.vm.boot import GUEST_RESULTS
from tests.vm.daemon import Tuned, own_profile
from tests.vm.libvirtd import Libvirtd, pid_of

SAMPLES = "samples"
"""The file of results, below a boot's folder."""

NODES = 4
CPUS_OF_NODE = 2
MIB = 64
"""Memory of a guest."""

VCPUS = 2
"""Of each guest: as many as a node has CPUs. All are busy."""

FULL = 4
"""Guests to begin with, whose vCPUs are as many as the machine's CPUs."""

MORE = {"150 %": 2, "300 %": 6}
"""Guests that are started then, by the load that there is with them."""

CHURN = 3
"""Guests that are stopped, one after another, and replaced at once."""

BUSY_SECONDS = 3
"""All guests run so long before another one is started, for numad to see how busy CPUs are."""

TURN_SECONDS = 1
WATCHED_SECONDS = 12
SETTLED_SECONDS = 6
"""After guests were started or stopped, before anything is read."""

SLOW_SECONDS = 300

SUITE = "bookworm"


@dataclass(frozen=True)
class Way:
    """One way to place guests: the program that libvirt asks, and vm_pinning."""

    name: str
    numad: Path | None = None
    profile: bool = False

    @property
    def placement(self) -> str:
        """Of <vcpu>: libvirt starts no guest with auto without a numad."""
        return "auto" if self.numad else "static"


def real_numad() -> Path:
    """Debian's numad; downloaded once, then kept."""
    return debian.unpacked("numad", SUITE, debian.CACHE) / "usr/bin/numad"


def ways() -> list[Way]:
    """All of them."""
    return [
        Way("none"),
        Way("numad", numad=real_numad()),
        Way("vm_pinning", profile=True),
        Way("our numad, vm_pinning", numad=machine.OUR_NUMAD, profile=True),
    ]


@dataclass(frozen=True)
class Turn:
    """A guest at one moment: nodes of its vCPUs' CPUs, and KiB of its memory by node."""

    vcpus: tuple[int, ...]
    memory: Mapping[int, int]

    @property
    def local(self) -> float:
        """Share of its memory that is on the node where a vCPU runs; mean of the vCPUs."""
        total = sum(self.memory.values())
        return statistics.mean(self.memory.get(node, 0) / total for node in self.vcpus)


@dataclass(frozen=True)
class Spent:
    """Nanoseconds that threads have run, and waited for a CPU, by thread."""

    run: Mapping[int, int]
    waited: Mapping[int, int]


@dataclass(frozen=True)
class Figures:
    """Of the busy guests in an interval, in percent but for `cpus`. `local`: share of memory on
    the node of the vCPU; `waited`: part of the time in which vCPUs waited for a CPU; both also of
    the guest that has it worst. `cpus`: CPUs that all vCPUs together used."""

    local: float
    least_local: float
    waited: float
    most_waited: float
    cpus: float


@dataclass(frozen=True)
class Sample:
    """What a step of a way in a round has shown; `homes`: how many guests have most of their memory
    on each node."""

    round: int
    way: str
    step: str
    figures: Figures
    homes: list[int]


def cpu_of(stat: str) -> int:
    """The CPU that a thread was on last: field 39 of its stat, the 37th after its name."""
    return int(stat.rpartition(")")[2].split()[36])


def figures(
    turns: Mapping[str, Sequence[Turn]],
    threads: Mapping[str, Sequence[int]],
    before: Spent,
    after: Spent,
    seconds: float,
) -> Figures:
    """Of what was read of each guest in an interval. Pure."""
    local = [statistics.mean(turn.local for turn in some) for some in turns.values()]
    waited = {
        name: [(after.waited[one] - before.waited[one]) / seconds / 1e9 for one in some]
        for name, some in threads.items()
    }
    every = [share for some in waited.values() for share in some]
    run = sum(after.run[one] - before.run[one] for some in threads.values() for one in some)
    return Figures(
        local=100 * statistics.mean(local),
        least_local=100 * min(local),
        waited=100 * statistics.mean(every),
        most_waited=100 * max(statistics.mean(some) for some in waited.values()),
        cpus=run / seconds / 1e9,
    )


def vcpu_threads(pid: int) -> list[int]:
    """Threads of a guest's vCPUs."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(task.name) for task in tasks if (task / "comm").read_text().startswith("CPU ")]


def turn(pid: int, threads: Sequence[int]) -> Turn:
    """A guest as it is now."""
    cpus = [cpu_of(Path(f"/proc/{pid}/task/{one}/stat").read_text()) for one in threads]
    return Turn(tuple(cpu // CPUS_OF_NODE for cpu in cpus), program.memory(pid))


def spent(threads: Sequence[int]) -> Spent:
    """What the kernel has counted of them (Documentation/scheduler/sched-stats.rst)."""
    counted = {one: Path(f"/proc/{one}/schedstat").read_text().split() for one in threads}
    return Spent(
        {one: int(words[0]) for one, words in counted.items()},
        {one: int(words[1]) for one, words in counted.items()},
    )


def qemus() -> set[int]:
    """All processes that are QEMU's by now: libvirt has asked for advice, and started it."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if (folder / "comm").read_text().startswith("qemu-system"):
                found.add(int(folder.name))
    return found


class Guests:
    """The guests of one way, numbered as they are started."""

    def __init__(self, libvirtd: Libvirtd, rom: Path, placement: str) -> None:
        self._connection = libvirtd.connection
        self._rom = rom
        self._placement = placement
        self._started = 0
        self.running: dict[str, int] = {}

    def start(self, count: int) -> None:
        """Start some, one after another; each has touched its memory before the next one starts."""
        for _ in range(count):
            self.signal(signal.SIGCONT)
            time.sleep(BUSY_SECONDS)
            self._start_one(f"guest{self._started}")
            self._started += 1
        self.signal(signal.SIGCONT)

    def _start_one(self, name: str) -> None:
        """The others run until libvirt has been advised where the guest should start, and has
        started QEMU; then they are stopped, because a busy emulated machine takes minutes for that.
        """
        before = qemus()
        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(self._connection.createXML, self._xml(name))
            wait_for(f"QEMU of {name}", lambda: made.done() or bool(qemus() - before), SLOW_SECONDS)
            self.signal(signal.SIGSTOP)
            made.result()
        self.running[name] = pid = pid_of(name)
        wait_for(f"{name} touches", partial(program.touched, pid, MIB), SLOW_SECONDS)

    def _xml(self, name: str) -> str:
        return program.GUEST.format(
            name=name,
            mib=MIB,
            placement=self._placement,
            numatune="",
            vcpus=VCPUS,
            rom=self._rom,
        )

    def signal(self, number: signal.Signals) -> None:
        """Send all guests a signal."""
        for pid in self.running.values():
            os.kill(pid, number)

    def churn(self, draw: random.Random) -> None:
        """Replace some, one after another."""
        for _ in range(CHURN):
            name = draw.choice(sorted(self.running))
            self._connection.lookupByName(name).destroy()
            del self.running[name]
            self.start(1)

    @contextlib.contextmanager
    def half_idle(self, draw: random.Random) -> Iterator[list[str]]:
        """Stop half of them; the others' names."""
        idle = draw.sample(sorted(self.running), len(self.running) // 2)
        for name in idle:
            os.kill(self.running[name], signal.SIGSTOP)
        yield [name for name in self.running if name not in idle]
        self.signal(signal.SIGCONT)

    def homes(self) -> list[int]:
        """Guests by the node that most of their memory is on."""
        memory = [program.memory(pid) for pid in self.running.values()]
        most = [max(nodes, key=lambda node: nodes[node]) for nodes in memory]
        return [most.count(node) for node in range(NODES)]

    def watch(self, names: Sequence[str]) -> Figures:
        """Read guests for a while."""
        time.sleep(SETTLED_SECONDS)
        pids = {name: self.running[name] for name in names}
        threads = {name: vcpu_threads(pid) for name, pid in pids.items()}
        every = [one for some in threads.values() for one in some]
        turns: dict[str, list[Turn]] = {name: [] for name in names}
        began, before = time.monotonic(), spent(every)
        while time.monotonic() - began < WATCHED_SECONDS:
            for name, pid in pids.items():
                turns[name].append(turn(pid, threads[name]))
            time.sleep(TURN_SECONDS)
        after, seconds = spent(every), time.monotonic() - began
        return figures(turns, threads, before, after, seconds)

    def stop(self) -> None:
        """All of them."""
        for name in self.running:
            self._connection.lookupByName(name).destroy()


@contextlib.contextmanager
def placed(way: Way, tuned: Tuned) -> Iterator[None]:
    """What a way needs, for the length of the with block; memory is as free for each."""
    Path("/proc/sys/vm/drop_caches").write_text("3")
    Path("/run/tuned-virt/numad.json").unlink(missing_ok=True)
    machine.put_numad(way.numad)
    if way.profile:
        tuned.switch(own_profile("nodes", "vm_pinning", policy="node"))
    yield
    if way.profile:
        tuned.off()
    machine.put_numad(None)


def steps(number: int, way: Way, guests: Guests, loads: Sequence[str]) -> Iterator[Sample]:
    """From a host that has as many vCPUs as CPUs to one with the last of the loads."""
    draw = random.Random(number)  # noqa: S311 - the same guests in each way

    def sample(step: str, names: Sequence[str]) -> Sample:
        return Sample(number, way.name, step, guests.watch(names), guests.homes())

    guests.start(FULL)
    yield sample("after start", list(guests.running))
    guests.churn(draw)
    yield sample("after churn", list(guests.running))
    for load in loads:
        guests.start(MORE[load])
        yield sample(load, list(guests.running))
        with guests.half_idle(draw) as busy:
            yield sample(f"{load}, half idle", busy)


def main() -> None:
    """All ways in turn, each first in one of the rounds."""
    rounds, loads = int(sys.argv[1]), sys.argv[2:]
    rom = program.write(Path(tempfile.mkdtemp()), MIB, "goes on")
    every = ways()
    with machine.system_bus(), (Path(GUEST_RESULTS) / SAMPLES).open("w") as results:
        machine.install_product()
        tuned = Tuned()
        tuned.forget_profile()
        tuned.start()
        libvirtd = Libvirtd(Path(os.environ["TUNED_VIRT_QEMU"]), interleaved=False)
        for number in range(rounds):
            first = number % len(every)
            for way in (*every[first:], *every[:first]):
                guests = Guests(libvirtd, rom, way.placement)
                with placed(way, tuned):
                    for one in steps(number, way, guests, loads):
                        print(json.dumps(asdict(one)), file=results, flush=True)
                        print(time.strftime("%T"), one, flush=True)
                    guests.stop()
        libvirtd.stop()
        tuned.stop()


if __name__ == "__main__":
    main()
