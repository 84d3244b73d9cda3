# SPDX-License-Identifier: GPL-2.0-or-later
"""All benches, one after another, and docs/performance.md from what they printed.

    python -m bench.page [--only "switch disks"] [--write]

Each bench's output is kept in build/bench, with the commit, so that a run can be resumed and one
bench repeated; `--write` makes the page of what is there. A bench whose exit status is 1 misses a
limit of its own: these come first.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build/bench"
PAGE = ROOT / "docs/performance.md"


@dataclass(frozen=True)
class Bench:
    """One bench: its heading, what it tells, and how it is run."""

    name: str
    heading: str
    told: str
    arguments: tuple[str, ...]

    @property
    def command(self) -> list[str]:
        """As it is run, and as the page says that it can be repeated."""
        return ["python", "-m", *self.arguments]


BENCHES = (
    Bench(
        "switch",
        "Switching profiles",
        "A switch to virtual-host-plus beside one to TuneD's virtual-host, under one daemon, by"
        " turns.",
        ("bench.switch",),
    ),
    Bench(
        "startup",
        "Commands",
        "From a command's start to its end, beside `tuned-adm active`.",
        ("bench.startup",),
    ),
    Bench(
        "growth",
        "With more guests, NUMA nodes and switches",
        "The planner from 1 to 1,000 guests and from 1 to 64 NUMA nodes; one more guest on a host"
        " that has them.",
        ("bench.growth",),
    ),
    *(
        Bench(
            f"disks-{count}",
            f"Schedulers of {count:,} disk{'s' if count > 1 else ''}",
            "Loop devices; TuneD's own disk plugin sets the same, by turns.",
            ("bench.disks", "--disks", str(count), "--rounds", str(rounds)),
        )
        for count, rounds in ((1, 5), (10, 5), (100, 5), (1000, 3))
    ),
    Bench(
        "hugepages",
        "Huge pages",
        "Pools beside a bare `echo` into the kernel's file, by turns; the verdict on pages that"
        " cannot be had.",
        ("bench.hugepages",),
    ),
    Bench(
        "pinning",
        "Guests",
        "From a guest's start to its last pin, many guests, memory and CPU of an idle daemon;"
        " the rival is a loop of the same libvirt calls.",
        ("bench.pinning",),
    ),
    Bench(
        "placement",
        "Placement",
        "Beside the optimum (CP-SAT), the program numad, and nobody; crowded hosts.",
        ("bench.placement",),
    ),
    Bench(
        "numad",
        "The advice that libvirt waits for",
        "Our numad with no, 100 and 1,000 guests, beside a bare Python and the program numad.",
        ("bench.numad",),
    ),
    Bench(
        "ksm",
        "KSM",
        "Who merges sooner and for less CPU: our controller, ksmtuned, the kernel at a fixed speed;"
        " each case once.",
        ("bench.ksm", "--runs", "1", "--rivals", "targets"),
    ),
    Bench(
        "schedulers",
        "Two tenants of one disk",
        "fio in two cgroups under each scheduler, with bfq's weights of 500 and 100.",
        ("bench.schedulers",),
    ),
    Bench(
        "memory-bound",
        "A memory-bound program in a guest",
        "Reads of a word in each page of an emulated guest (TCG), in pages of three kinds.",
        ("bench.memory_bound",),
    ),
    Bench(
        "idle",
        "While nothing happens",
        "TuneD's memory, CPU time and wake-ups, with its own profiles and with ours.",
        ("bench.idle", "--seconds", "20"),
    ),
    Bench(
        "fleet-planning",
        "Plans and audits of a fleet",
        "1,000 hosts of 30 guests, from snapshots alone.",
        ("bench.fleet_planning",),
    ),
    Bench(
        "switches",
        "A thousand switches",
        "Descriptors, threads and memory of one daemon with guests running.",
        ("tests.faults.switches", "999"),
    ),
    Bench(
        "stock-switches",
        "The same with TuneD's own profiles",
        "What TuneD itself grows by.",
        ("tests.faults.switches", "300", "--stock"),
    ),
)


@dataclass(frozen=True)
class Result:
    """What a bench has printed, when, and of which commit."""

    name: str
    status: int
    seconds: float
    output: str
    commit: str
    day: str

    @classmethod
    def load(cls, name: str) -> Result | None:
        """The last one that was kept, if any."""
        try:
            return cls(**json.loads((KEPT / f"{name}.json").read_text()))
        except FileNotFoundError:
            return None

    def save(self) -> None:
        """Instead of the last one."""
        KEPT.mkdir(parents=True, exist_ok=True)
        (KEPT / f"{self.name}.json").write_text(json.dumps(asdict(self), indent=1))


def commit() -> str:
    """What is measured; the page itself, which each bench writes anew, makes no difference."""

    def told(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    others = (".", f":!{PAGE.relative_to(ROOT)}")
    changed = told("status", "--porcelain", "--untracked-files=no", "--", *others)
    return told("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def run(bench: Bench) -> Result:
    """Run one, and show what it prints."""
    print(f"=== {' '.join(bench.command)}", flush=True)
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", *bench.arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    status = process.wait()
    day = datetime.date.today().isoformat()
    return Result(bench.name, status, time.monotonic() - began, "".join(lines), commit(), day)


def machine() -> str:
    """What they ran on."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    kernel = ".".join(platform.release().split("-")[0].split(".")[:2])
    return f"{os.cpu_count()} CPUs ({found[1] if found else platform.machine()}), Linux {kernel}"


def page(results: Sequence[tuple[Bench, Result]], about: str) -> str:
    """The page. Pure."""
    missed = [bench for bench, result in results if result.status]
    parts = [
        "# Performance",
        "Generated by `make bench`: each section is what its command printed. Figures are medians"
        f" of several runs, beside a rival in the same run. Measured on {about}; guests under TCG.",
        _missed(missed),
        *_left_out({bench.name for bench, _ in results}),
    ]
    for bench, result in results:
        when = f"{result.day}, commit {result.commit}, {result.seconds:.0f} s"
        command = f"`{' '.join(bench.command)}` ({when})"
        parts += [f"## {bench.heading}", bench.told, command, f"```\n{result.output.rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _left_out(run: Collection[str]) -> Iterator[str]:
    """A page of some benches says so."""
    left = [bench.heading for bench in BENCHES if bench.name not in run]
    if left:
        yield f"**Not run** at these commits: {', '.join(left)}."


def _missed(benches: Sequence[Bench]) -> str:
    if not benches:
        return "Every figure is within its limit."
    return "**Over a limit**: " + ", ".join(one.heading for one in benches) + "."


def main() -> int:
    """See the module. 1 where a bench has missed a limit."""
    parser = argparse.ArgumentParser(prog="python -m bench.page")
    parser.add_argument("--only", default="", help="names of benches; all where none is given")
    parser.add_argument("--write", action="store_true", help="only write the page")
    told = parser.parse_args()
    names = told.only.split() or [one.name for one in BENCHES]
    unknown = set(names) - {one.name for one in BENCHES}
    if unknown:
        parser.error(f"{', '.join(unknown)}: of {', '.join(one.name for one in BENCHES)}")
    if not told.write:
        for bench in BENCHES:
            if bench.name in names:
                run(bench).save()
    found = [(bench, result) for bench in BENCHES if (result := Result.load(bench.name))]
    PAGE.write_text(page(found, machine()))
    return int(any(result.status for _, result in found))


if __name__ == "__main__":
    sys.exit(main())
