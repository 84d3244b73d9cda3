# SPDX-License-Identifier: GPL-2.0-or-later
"""A soak: random steps, and after each one all that must hold.

    python -m tests.soak [--hours 1] [--seed N] [--version latest] [--steps N]

prints a line a minute and a table of the steps at the end. Exit status: 0 when everything held, 1
when something did not, 2 when it could not be tried. The same seed takes the same steps.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator

from tests.faults.switches import Size, daemon
from tests.machine_in_use import Unusable, known_state
from tests.sandbox import SUITES
from tests.soak.scene import Scene, scene
from tests.soak.steps import Course, Step

HELD, FAILED, NOT_TRIED = 0, 1, 2

LINE_EVERY = 60.0
"""Seconds."""

LAST_STEPS = 12
"""Shown where something does not hold."""


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=sys.maxsize, help="end after so many")
    parser.add_argument("--seed", type=int, default=None, help="which: printed where not given")
    parser.add_argument("--version", choices=SUITES, default="latest", help="TuneD's generation")
    return parser.parse_args()


def soak(made: Scene, told: argparse.Namespace, taken: list[Step]) -> Iterator[str]:
    """All steps; what is said meanwhile. Raises scene.Broken."""
    began = said = time.monotonic()
    for step in Course(told.seed).steps():
        now = time.monotonic()
        if now - began > told.hours * 3600 or len(taken) >= told.steps:
            break
        taken.append(step)
        made.take(step)
        made.check(step)
        if now - said > LINE_EVERY:
            said = now
            size = f"TuneD {Size.of(daemon(made.t))}" if made.tuned else "TuneD is not running"
            yield f"{now - began:.0f} s, {len(taken)} steps: {size}"
    if not made.tuned:
        made.take(Step("start tuned"))
    if not made.libvirtd:
        made.take(Step("start libvirtd"))
    made.take(Step("off"))
    made.take(Step("restore"))
    made.check(Step("off"))


def main() -> int:
    """See the module."""
    told = options()
    if os.geteuid() != 0:
        print("root is required: sudo make soak", file=sys.stderr)
        return NOT_TRIED
    if told.seed is None:
        told.seed = random.randrange(1 << 32)
    print(f"seed {told.seed}, TuneD {told.version}", flush=True)
    taken: list[Step] = []
    try:
        with known_state(print), scene(told.version) as made:
            for text in soak(made, told, taken):
                print(text, flush=True)
    except Unusable as error:
        print(error, file=sys.stderr)
        return NOT_TRIED
    except Exception as error:  # whatever ends a soak is what it has found
        last = ", ".join(str(step) for step in taken[-LAST_STEPS:])
        print(f"{type(error).__name__} at step {len(taken)}: {error}\nlast: {last}")
        print(f"to repeat: python -m tests.soak --seed {told.seed} --steps {len(taken)}")
        return FAILED
    finally:
        kinds = Counter(step.kind for step in taken)
        print("\n".join(f"{count:6} {kind}" for kind, count in kinds.most_common()))
    print(f"{len(taken)} steps, everything held after each")
    return HELD


if __name__ == "__main__":
    sys.exit(main())
