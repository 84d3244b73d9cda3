# SPDX-License-Identifier: GPL-2.0-or-later
"""Each call that an apply and an off make fails once, on each TuneD generation.

    python -m tests.faults [--versions "2.20 2.25 latest"] [--sample N] [--seed N] [--every]
    python -m tests.faults --versions 2.20 --seed 1 --from 200 --seconds 300     in slices

prints every round in which something is wrong, then one table. Exit status: 0 when nothing was
wrong, 1 when something was, 2 when it could not be tried.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
import time
from collections.abc import Iterator

from tests.faults.plan import ERRORS, PHASES, Fault, Table, distinct, faults
from tests.faults.world import NotPrepared, Rounds, world
from tests.machine_in_use import Unusable, known_state
from tests.sandbox import SUITES

HELD, FAILED, NOT_TRIED = 0, 1, 2

EVERY = 50
"""Rounds between two lines of progress."""


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--versions", default=" ".join(SUITES), help="generations of TuneD")
    parser.add_argument("--sample", type=int, help="so many faults of each generation")
    parser.add_argument("--from", type=int, default=0, dest="first", help="leave out so many")
    parser.add_argument("--seed", type=int, default=None, help="which: printed where not given")
    parser.add_argument("--every", action="store_true", help="each call, not one of each kind")
    parser.add_argument("--errors", action="store_true", help="with each error, not by turns")
    parser.add_argument("--only", default="", help="calls that match this pattern")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so many")
    return parser.parse_args()


def chosen(told: argparse.Namespace, traces: dict[str, list[str]], seed: int) -> list[Fault]:
    """The faults of one generation, in a random order: a run that ends early is a sample."""
    chance = random.Random(seed)
    found: list[Fault] = []
    for phase in PHASES:
        calls = [one for one in distinct(traces[phase], told.every) if re.search(told.only, one[0])]
        found += faults(phase, calls, chance, told.errors)
    chance.shuffle(found)
    return found[told.first :][: told.sample]


def rounds(told: argparse.Namespace, seed: int, table: Table) -> Iterator[str]:
    """Run them all; what is to be said meanwhile."""
    began = time.monotonic()
    for version in told.versions.split():
        with world(version) as made:
            run = Rounds(made)
            for phase, calls in run.traces.items():
                table.made(version, phase, calls)
            wanted = chosen(told, run.traces, seed)
            yield f"TuneD {version}: {len(wanted)} faults"
            for number, fault in enumerate(wanted, told.first + 1):
                if number % EVERY == 0:
                    yield f"TuneD {version}: {number} after {time.monotonic() - began:.0f} s"
                if time.monotonic() - began > told.seconds:
                    yield f"TuneD {version}: ended early; the next is --from {number - 1}"
                    break
                outcome = run.run(fault)
                table.add(version, outcome)
                if outcome.bad:
                    yield f"TuneD {version}: {fault}\n    {outcome.bad}"


def main() -> int:
    """See the module."""
    told = options()
    if os.geteuid() != 0:
        print("root is required: sudo make check-faults", file=sys.stderr)
        return NOT_TRIED
    seed = random.randrange(1 << 32) if told.seed is None else told.seed
    print(f"seed {seed}; errors by turns: {', '.join(ERRORS)}", flush=True)
    table = Table()
    try:
        with known_state(print):
            for text in rounds(told, seed, table):
                print(text, flush=True)
    except (NotPrepared, Unusable) as error:
        print(error, file=sys.stderr)
        return NOT_TRIED
    finally:
        print(table.text(), flush=True)
    print(f"to repeat: python -m tests.faults --seed {seed}")
    return FAILED if table.bad else HELD


if __name__ == "__main__":
    sys.exit(main())
