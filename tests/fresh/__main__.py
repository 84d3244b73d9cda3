# SPDX-License-Identifier: GPL-2.0-or-later
"""The README's two commands as a newcomer runs them: in a clone, on a minimal Debian.

    python -m tests.fresh [--suites "bookworm trixie"] [--brief]

prints what they printed, then one line for each. Exit status: 0 when all of it held, 1 when
something did not, 2 when it could not be tried.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import debian
from tests.fresh.machine import Done, Machine

SOURCE = Path(__file__).resolve().parents[2]
HELD, FAILED, NOT_TRIED = 0, 1, 2

SAMPLE = {
    "blk_elevator_virt": "test_disks.py::test_noop",
    "crash_guard": "test_profiles.py::test_a_crash_without_a_next_tuned",
    "hugepages_numa": "test_profiles.py::test_the_administrators_variables",
    "ksm": "test_ksm.py::test_kill9_then_off_is_byte_identical",
    "virt_system": "test_profiles.py::test_effective_values_verify_and_way_back",
    "vm_blkio": "test_blkio.py::test_under_tuned",
    "vm_limits": "test_guest_plugins.py::test_devices_and_instances",
    "vm_pinning": "test_guest_plugins.py::test_started_placed_verified_undone",
}
"""A system test of each plugin, for the brief form."""

BESIDE_INSTALLED = "test_beside.py::test_with_pages_at_boot_arguments_are_joined"
"""Fails where a test takes what `make up` has installed for the checkout."""

NO_NETWORK = "unshare --net -- sh -c 'ip link set lo up && exec \"$@\"' sh "
"""What is left is what every machine has: its own addresses."""


@dataclass(frozen=True)
class Step:
    """A command there, and what else must hold of it: what is wrong, in words, or ""."""

    command: str
    check: Callable[[Machine, Done], str] = lambda *_: ""


def verified(machine: Machine, done: Done) -> str:
    """Of a first `make up`."""
    return "" if ": verified, " in done.output else "it does not say that the profile is verified"


class Unchanged:
    """Of a second `make up`: no file differs from what it was before."""

    def __init__(self, machine: Machine) -> None:
        self._before = machine.files()

    def __call__(self, machine: Machine, done: Done) -> str:
        now = machine.files()
        names = sorted(set(self._before.items()) ^ set(now.items()))
        changed = sorted({name for name, _ in names})
        return f"it changed {', '.join(changed[:10])}" if changed else verified(machine, done)


def whole(machine: Machine) -> Iterator[Step]:
    """All that the README promises; minutes for each tier."""
    yield Step("make up", verified)
    yield Step("CI=true make check")
    yield Step("make up", Unchanged(machine))
    yield Step(f"{NO_NETWORK}make check-unit")


def brief(machine: Machine) -> Iterator[Step]:
    """What fits into CI."""
    chosen = sorted({*SAMPLE.values(), BESIDE_INSTALLED})
    tests = " ".join(f"tests/system/{test}" for test in chosen)
    yield Step("make up", verified)
    yield Step("make check-unit")
    yield Step("CI=true make check-packages")
    yield Step(f"CI=true make check-system SYSTEM='{tests}'")
    yield Step("make up", Unchanged(machine))
    yield Step(f"{NO_NETWORK}make check-style")


def first_step(machine: Machine) -> Iterator[Step]:
    """What fits into CI for the suites after the first."""
    yield Step("make up PROFILE=virtual-host-plus", verified)
    yield Step("make up", Unchanged(machine))


def try_out(machine: Machine, steps: Callable[[Machine], Iterator[Step]]) -> Iterator[str]:
    """Take the steps, show them, and return a line for each; one that failed begins with FAILED."""
    for step in steps(machine):
        print(f"=== {machine.suite}: {step.command}", flush=True)
        done = machine.run(step.command)
        wrong = f"exit status {done.status}" if done.status else step.check(machine, done)
        line = f"{machine.suite}: {step.command}: {wrong or 'held'}, {done.seconds:.0f} s"
        yield f"FAILED {line}" if wrong else line


def uncommitted() -> int:
    """How many files of this checkout differ from its last commit, which is what is cloned."""
    git = ["git", "-c", f"safe.directory={SOURCE}", "-C", str(SOURCE)]
    done = subprocess.run([*git, "status", "--short"], capture_output=True, text=True, check=True)
    return len(done.stdout.splitlines())


def run(suites: Sequence[str], short: bool, keep: bool) -> int:
    """Try each suite; print the lines at the end."""
    if uncommitted():
        print(f"note: the last commit is tried, not the {uncommitted()} files that differ from it")
    lines: list[str] = []
    for number, suite in enumerate(suites):
        steps = whole if not short else first_step if number else brief
        started = time.monotonic()
        with Machine(suite, SOURCE, keep) as machine:
            print(f"=== {suite}: a minimal Debian after {time.monotonic() - started:.0f} s")
            lines += try_out(machine, steps)
    print("=== what was tried")
    print("\n".join(lines))
    failed = sum(line.startswith("FAILED ") for line in lines)
    print(f"{len(lines) - failed} passed, {failed} failed")
    return FAILED if failed else HELD


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run README's two commands on a fresh Debian.")
    parser.add_argument("--suites", default="bookworm trixie", help="Debian's releases")
    parser.add_argument("--brief", action="store_true", help="what fits into CI")
    parser.add_argument("--keep", action="store_true", help="leave the system's folder behind")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(NOT_TRIED))
    if os.geteuid() != 0:
        print("it needs root, for mounts and namespaces: sudo make check-fresh", file=sys.stderr)
        return NOT_TRIED
    try:
        return run(options.suites.split(), options.brief, options.keep)
    except (debian.Unavailable, OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"check-fresh could not be tried: {error}", file=sys.stderr)
        return NOT_TRIED


if __name__ == "__main__":
    sys.exit(main())
