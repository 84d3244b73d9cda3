# SPDX-License-Identifier: GPL-2.0-or-later
"""What schedulers and weights do for two tenants of one disk: fio in two cgroups, by turns.

    python -m bench.schedulers [--rounds 3] [--seconds 5]

The disk is a loop device with direct I/O on a file of this machine's file system. Each scheduler
that it offers is set by turns; with bfq each cgroup has the weight that vm_blkio sets of guests.

shares   both read at random as fast as they can; cgroup "five" has five times the weight of "one"
quiet    "five" reads 50 times in a second, "one" as fast as it can: how long the quiet one waits
alone    what the quiet one waits for where nobody else reads
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.figures import spread
from tests.loopdev import FIRST, LOOP_CLR_FD, LOOP_SET_FD, loops, node, queue, set_all

LOOP_SET_DIRECT_IO = 0x4C08
"""linux/loop.h"""

GIB = 1 << 30
WEIGHTS = {"five": 500, "one": 100}
"""By cgroup: bfq's weights, of 1 to 1000 (Documentation/block/bfq-iosched.rst)."""

FILES = ("io.bfq.weight", "blkio.bfq.weight")
"""Of cgroup v2 and v1."""

QUIET_IOPS = 50
DEEP = 16
"""Requests of one tenant that are under way at once."""

V1, V2 = Path("/sys/fs/cgroup/blkio"), Path("/sys/fs/cgroup")

Figures = Mapping[str, tuple[float, float]]
"""IOPS, and the 99th percentile of latency in ms, by cgroup."""

Job = Mapping[str, int]
"""Options of fio."""

BUSY: Job = {"iodepth": DEEP}
QUIET: Job = {"iodepth": 1, "rate_iops": QUIET_IOPS}
CASES: Mapping[str, Mapping[str, Job]] = {
    "shares": {"five": BUSY, "one": BUSY},
    "quiet": {"five": QUIET, "one": BUSY},
    "alone": {"five": QUIET},
}


@contextlib.contextmanager
def disk() -> Iterator[str]:
    """A loop device with a file of 1 GiB behind it, written once, read past the page cache."""
    with tempfile.NamedTemporaryFile(dir="/var/tmp", prefix="tuned-virt-bench-") as file:
        for _ in range(GIB >> 20):
            file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())
        with loops(1, FIRST) as [name], node(name).open("r+b") as device:
            fcntl.ioctl(device, LOOP_SET_FD, file.fileno())
            try:
                fcntl.ioctl(device, LOOP_SET_DIRECT_IO, 1)
                yield name
            finally:
                fcntl.ioctl(device, LOOP_CLR_FD)


@contextlib.contextmanager
def cgroups() -> Iterator[Mapping[str, Path]]:
    """Two cgroups with bfq's weights. Raises SystemExit where the kernel has none for a cgroup."""
    root = V1 if V1.is_dir() else V2
    found = {name: root / f"tuned-virt-bench-{name}" for name in WEIGHTS}
    try:
        for name, folder in found.items():
            folder.mkdir()
            there = [folder / file for file in FILES if (folder / file).exists()]
            if not there:
                raise SystemExit(f"{folder} has neither of {' and '.join(FILES)}: bfq is not there")
            there[0].write_text(str(WEIGHTS[name]))
        yield found
    finally:
        for folder in found.values():
            with contextlib.suppress(FileNotFoundError):
                folder.rmdir()


def fio(name: str, folder: Path, job: Job, seconds: float) -> subprocess.Popen[str]:
    """One tenant at work."""
    options = {
        "name": "tenant",
        "filename": f"/dev/{name}",
        "rw": "randread",
        "bs": "4k",
        "direct": 1,
        "ioengine": "libaio",
        "time_based": 1,
        "runtime": seconds,
        "output-format": "json",
        **job,
    }
    return subprocess.Popen(
        [
            *("sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(folder), "fio"),
            *(f"--{option}={value}" for option, value in options.items()),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )


def run(name: str, groups: Mapping[str, Path], jobs: Mapping[str, Job], seconds: float) -> Figures:
    """IOPS and the 99th percentile of latency, in ms, by cgroup."""
    at_work = {one: fio(name, groups[one], job, seconds) for one, job in jobs.items()}
    figures = {}
    for one, process in at_work.items():
        out, _ = process.communicate(timeout=seconds + 60)
        read = json.loads(out)["jobs"][0]["read"]
        figures[one] = (read["iops"], read["clat_ns"]["percentile"]["99.000000"] / 1e6)
    return figures


def told(case: str, rounds: Sequence[Figures]) -> str:
    """Medians, lowest and highest, in a line."""
    if case == "shares":
        shares = [100 * one["five"][0] / sum(iops for iops, _ in one.values()) for one in rounds]
        total = statistics.median(sum(iops for iops, _ in one.values()) for one in rounds)
        return f'"five" has {spread(shares)} % of {total:,.0f} IOPS'
    waits = [one["five"][1] for one in rounds]
    iops = statistics.median(one["five"][0] for one in rounds)
    return f"99 % of its reads end within {spread(waits)} ms, {iops:.0f} IOPS"


def main() -> int:
    """Measure by turns and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.schedulers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    given = parser.parse_args()
    found: dict[tuple[str, str], list[Figures]] = {}
    with disk() as name, cgroups() as groups:
        offered = (queue(name) / "scheduler").read_text().replace("[", "").replace("]", "").split()
        for _ in range(given.rounds):
            for case, jobs in CASES.items():
                for word in offered:
                    set_all([name], word)
                    figures = run(name, groups, jobs, given.seconds)
                    found.setdefault((case, word), []).append(figures)
    for (case, word), rounds in found.items():
        print(f"{case:8} {word:12} {told(case, rounds)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
