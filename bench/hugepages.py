# SPDX-License-Identifier: GPL-2.0-or-later
"""Allocating huge pages: our plan and writer against a bare echo, and against hugeadm.

    python -m bench.hugepages [--fragments GIB]

plain       the same number of pages of 2 MiB on node 0, by turns, on memory as it is
verify      of an unchanged tree of eight nodes, for each node
fragments   1000 pages where memory is in fragments (bench.hugepages_fragments), pages got and
            seconds, also of hugeadm (Debian's libhugetlbfs-bin, unpacked and not installed)
1 GiB       seconds to the verdict on a request that fragmented memory cannot meet, also of an echo

Pools are put back. Medians of several turns; the ratio's limit is the project's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Optional

from bench.figures import put_back
from tests import debian
from tests.debian import CACHE
from tests.sandbox import PYTHON, REPO
from tuned_virt.core.engine import Engine
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model import topology
from tuned_virt.model.topology.huge_pages import folder
from tuned_virt.plugins import hugepages_numa
from tuned_virt.plugins.hugepages_numa import HugepagesPolicy, HugepagesTuner
from tuned_virt.plugins.hugepages_numa.state import HugepagesState

M2 = 2048
PAGES = 1000
"""Where memory is in fragments."""
MANY = 4000
"""Where it is not: 8 GiB."""
TURNS = 9
LIMIT = 1.1
VERDICTS = 5
SPARE_KIB = 2 << 20
"""What making fragments leaves to the machine."""

NODES = 8
VERIFIES = 20

Tune = Engine[HugepagesPolicy, Optional[HugepagesState]]


def engine(root: Path, state: Path) -> Tune:
    """The plugin's engine over a machine, with a baseline of its own."""
    baseline = Originals(state, "bench")
    return Engine(
        HugepagesTuner(folder=state), KernelFS(root), baseline, Journal(state / "journal")
    )


def pool(size_kib: int = M2) -> Path:
    """Node 0's pool of a size."""
    return Path(folder(0, size_kib)) / "nr_hugepages"


def there() -> int:
    """Its pages now."""
    return int(pool().read_text())


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def echo(pages: int) -> None:
    """What everybody does."""
    pool().write_text(str(pages))


def planned(tune: Tune, pages: int) -> tuple[float, float]:
    """Ours: seconds of reading, deciding and keeping originals, and of the allocation."""
    policy = hugepages_numa.parse({"pages_2M": f"0:{pages}", "reserve_free": "0"})
    began = time.perf_counter()
    begun = tune.prepare(policy)
    between = time.perf_counter()
    tune.execute(begun)
    return between - began, time.perf_counter() - between


def plain(tune: Tune) -> bool:
    """Both by turns; whether the ratio is within its limit."""
    times: dict[str, list[float]] = {"echo": [], "plan": [], "ours": []}
    for _ in range(TURNS):
        pool().write_text("0")
        times["echo"].append(timed(lambda: echo(MANY)))
        pool().write_text("0")
        plan, allocation = planned(tune, MANY)
        assert there() == MANY, f"{there()} pages"
        times["plan"].append(plan)
        times["ours"].append(allocation)
        tune.restore()
    echoed, plan, ours = (statistics.median(found) for found in times.values())
    within = ours / echoed <= LIMIT
    print(
        f"plain      {MANY} pages: echo {echoed * 1000:.1f} ms, ours {ours * 1000:.1f} ms, ratio"
        f" {ours / echoed:.2f} (at most {LIMIT}) {'ok' if within else 'MISSED'}; before it"
        f" {plan * 1000:.1f} ms to read, plan and keep the originals"
    )
    return within


def verify(state: Path) -> None:
    """Of eight nodes that are as they should be, in a tree of files."""
    root = state / "machine"
    for node in range(NODES):
        home = root / f"sys/devices/system/node/node{node}"
        home.mkdir(parents=True)
        (home / "meminfo").write_text(f"Node {node} MemTotal: 268435456 kB\n")
        for size in (M2, 1 << 20):
            files = root / folder(node, size).lstrip("/")
            files.mkdir(parents=True)
            for name in ("nr", "free", "surplus"):
                (files / f"{name}_hugepages").write_text("0" if name == "surplus" else "64")
    (root / topology.NODES[1:] / "has_memory").write_text(f"0-{NODES - 1}")
    tune = engine(root, state / "eight")
    policy = hugepages_numa.parse({"pages_2M": "all:64", "pages_1G": "all:64"})
    outcome = tune.apply(policy)
    assert not outcome.failed
    assert len(outcome.plan.wanted) == 2 * NODES
    taken = [timed(lambda: list(tune.verify(outcome, policy, False))) for _ in range(VERIFIES)]
    each = statistics.median(taken) * 1000 / NODES
    print(f"verify     {NODES} nodes, two sizes: {each:.2f} ms a node (1 is the goal)")


@contextlib.contextmanager
def fragments(gib: float) -> Iterator[None]:
    """Memory in fragments for the length of the block."""
    command = [PYTHON, "-m", "bench.hugepages_fragments", str(gib)]
    with subprocess.Popen(
        command, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin and holder.stdout
        if holder.stdout.readline() != "ready\n":
            raise SystemExit("fragments could not be made")
        yield
        holder.stdin.close()


def hugeadm() -> str:
    """Path of Debian's hugeadm, with its library beside it; "" where it cannot be had."""
    try:
        root = debian.unpacked("libhugetlbfs-bin", "bookworm", CACHE)
        library = debian.unpacked("libhugetlbfs0", "bookworm", CACHE)
    except debian.Unavailable as error:
        print(f"hugeadm    cannot be had: {error}")
        return ""
    for file in library.rglob("*.so*"):
        shutil.copy(file, root / "usr/bin")
    return str(root / "usr/bin/hugeadm")


def asked_of_hugeadm(program: str) -> None:
    """What an administrator of libhugetlbfs types."""
    subprocess.run(
        [program, "--pool-pages-min", f"2MB:{PAGES}"],
        env={**os.environ, "LD_LIBRARY_PATH": str(Path(program).parent)},
        capture_output=True,
        check=False,
    )


def fragmented(tune: Tune, gib: float) -> None:
    """Each way on the same kind of memory; the fragments are made anew for each."""
    policy = hugepages_numa.parse({"pages_2M": f"0:{PAGES}", "reserve_free": "0"})
    program = hugeadm()
    ways: dict[str, Callable[[], object]] = {
        "echo": lambda: echo(PAGES),
        **({"hugeadm": lambda: asked_of_hugeadm(program)} if program else {}),
        "ours": lambda: tune.apply(policy),
    }
    for name, work in ways.items():
        with put_back(pool()), fragments(gib):
            pool().write_text("0")
            taken = timed(work)
            print(f"fragments  {name:8} {there():5} of {PAGES} pages in {taken:.2f} s")
            tune.restore()


def unattainable(tune: Tune, gib: float) -> None:
    """The verdict on pages of 1 GiB, each way on fragments of its own: the first attempt counts."""
    policy = hugepages_numa.parse({"pages_1G": "0:4", "reserve_free": "0"})
    large = pool(1 << 20)
    ways: dict[str, Callable[[], object]] = {
        "echo": lambda: large.write_text("4"),
        "ours": lambda: tune.apply(policy),
    }
    for name, work in ways.items():
        times, got = [], set()
        for _ in range(VERDICTS):
            with fragments(gib):
                times.append(timed(work))
                got.add(int(large.read_text()))
                tune.restore()
                large.write_text("0")
        print(
            f"1 GiB      {name:8} {min(got)} of 4 pages, the verdict after"
            f" {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"
        )


def main() -> int:
    """Measure and print; 1 if the ratio is over its limit."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--fragments", type=float, metavar="GIB", help="by default all but 2")
    given = arguments.parse_args()
    available = topology.meminfo(KernelFS())["MemAvailable"]
    gib = given.fragments or (available - SPARE_KIB) / (1 << 20)
    with tempfile.TemporaryDirectory(prefix="tuned-virt-bench-") as state:
        tune = engine(Path("/"), Path(state))
        with put_back(pool()):
            within = plain(tune)
        verify(Path(state))
        if gib > 1:
            fragmented(tune, gib)
            with put_back(pool()), put_back(pool(1 << 20)):
                unattainable(tune, gib)
    return int(not within)


if __name__ == "__main__":
    sys.exit(main())
