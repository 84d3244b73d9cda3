# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether placement helps: local memory and waits of busy guests that we, numad or nobody places.

    python -m bench.benefit [--rounds 3] [--not-full]

One machine of four NUMA nodes is booted, emulated by QEMU without KVM; in it a real libvirtd starts
the same guests in each way, by turns. Emulated memory of another node is as fast as that of one's
own: where pages are, and how long vCPUs wait, can be measured here, and how much faster that makes
a guest cannot. docs/benefit.md has the figures.

Exit status: 0 when all rounds were measured, 2 when not; what was measured is printed all the same.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.benefit_guests import MORE, SAMPLES, real_numad
from bench.figures import spread
from tests import debian
from tests.vm import boot

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build/bench/benefit.jsonl"

SERIES = "6.1"
MEMORY = boot.Memory("10G", tuple(f"2560M,cpus={2 * node}-{2 * node + 1}" for node in range(4)))
"""As much on each node: real hosts are so, and numad goes where most memory is free."""

LIMIT_SECONDS = 10800

FIGURES = {
    "local": "Memory on the node of the vCPU, %, mean of guests",
    "least_local": "The same, of the guest that has least",
    "waited": "Time in which vCPUs waited for a CPU, %, mean",
    "most_waited": "The same, of the guest that waited most",
    "cpus": "CPUs that all vCPUs together used, of 8",
}

Sample = dict[str, Any]


def rows(samples: Sequence[Sample], cells: dict[tuple[str, str], str]) -> Iterator[str]:
    """A table of ways by steps, both in the order in which they were first measured."""
    steps = list(dict.fromkeys(sample["step"] for sample in samples))
    ways = list(dict.fromkeys(sample["way"] for sample in samples))
    wide = max(map(len, ways)) + 2
    yield " " * wide + "".join(f"{step:>20}" for step in steps)
    for way in ways:
        yield f"{way:{wide}}" + "".join(f"{cells.get((way, step), '-'):>20}" for step in steps)


def of_each(samples: Sequence[Sample]) -> dict[tuple[str, str], list[Sample]]:
    """Samples by way and step."""
    found: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        found.setdefault((sample["way"], sample["step"]), []).append(sample)
    return found


def tables(samples: Sequence[Sample]) -> Iterator[str]:
    """What is printed, line by line. Pure."""
    found = of_each(samples)
    for name, heading in FIGURES.items():
        yield f"{heading}: median of rounds (lowest-highest)"
        yield from rows(
            samples,
            {key: spread([one["figures"][name] for one in some]) for key, some in found.items()},
        )
        yield ""
    yield "Guests by the node of most of their memory, in the first round"
    homes = {key: " ".join(map(str, some[0]["homes"])) for key, some in found.items()}
    yield from rows(samples, homes)
    yield ""
    counts = Counter(sample["way"] for sample in samples if sample["step"] == samples[0]["step"])
    yield "Rounds: " + ", ".join(f"{way} {count}" for way, count in counts.items())


def left() -> Path:
    """Where the machine leaves its samples."""
    return boot.results_of(SERIES) / SAMPLES


def measure(rounds: int, limit: float, loads: Sequence[str]) -> int:
    """Boot the machine and measure in it, up to these loads; the exit status of what ran there.

    Raises NotRunError, debian.Unavailable, OSError and CalledProcessError.
    """
    left().unlink(missing_ok=True)
    boot.extend_path()
    boot.check_programs()
    real_numad()
    image = boot.kernel_image(SERIES)
    command = [sys.executable, "-m", "bench.benefit_guests", str(rounds), *loads]
    print(f"the host's load before: {os.getloadavg()[0]:.1f}", flush=True)
    return boot.boot_twice_at_most(SERIES, image, limit, command, MEMORY)


def kept() -> list[Sample]:
    """What the machine has left, which is then kept."""
    if not left().exists():
        return []
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(left(), KEPT)
    return [json.loads(line) for line in KEPT.read_text().splitlines()]


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.benefit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=LIMIT_SECONDS, help="seconds")
    parser.add_argument(
        "--not-full",
        action="store_true",
        help="no more vCPUs than CPUs: half of the time",
    )
    told = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(boot.NOT_RUN))
    status = boot.NOT_RUN
    try:
        status = measure(told.rounds, told.limit, () if told.not_full else tuple(MORE))
    except (boot.NotRunError, debian.Unavailable, OSError, subprocess.SubprocessError) as error:
        print(f"not all was measured: {error}")
    samples = kept()
    if samples:
        print(*tables(samples), sep="\n")
    return boot.NOT_RUN if status else 0


if __name__ == "__main__":
    sys.exit(main())
