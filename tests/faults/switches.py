# SPDX-License-Identifier: GPL-2.0-or-later
"""Many profile switches under one daemon with guests running: nothing grows, nothing is lost.

    python -m tests.faults.switches [COUNT] [--version 2.20] [--seconds N] [--files 256]
    python -m tests.faults.switches --starve     descriptors that run out at every moment
    python -m tests.faults.switches 300 --stock  TuneD's own profiles, to compare with

prints descriptors, threads and memory as they were after ten switches and later. Exit status: 0
when they stayed and off was exact, 1 when not, 2 when it could not be tried. TuneD itself keeps an
object of each of its own plugins for good at every switch: see TUNED_KEEPS.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dbus

from tests.faults.world import PROFILE, NotPrepared, World, world
from tests.machine_in_use import Unusable, known_state
from tests.sandbox import SUITES, Sandbox

HELD, FAILED, NOT_TRIED = 0, 1, 2

FIRST = 10
"""Switches after which everything is loaded."""

EVERY = 100
"""Switches between two lines."""

SAMPLES, BETWEEN = 5, 0.3
"""How often a size is read, and the seconds in between."""

MORE_FILES, MORE_MEMORY = 4, 10 << 10
"""Descriptors and KiB that may come and go."""

TUNED_KEEPS = 1.5
"""KiB a switch that TuneD may grow by: it keeps an object of each of its own plugins, of which our
profiles use few; 10,000 switches took 1.1 each. Its stock profiles take 8.5."""

STARVED = 24
"""Descriptors that are left to the daemon at first, when they run out; one less each time."""

LAST = 6000
"""Characters of TuneD's log that are shown where something is not exact."""

OURS = ("all", "other")
STOCK = ("virtual-host", "throughput-performance")

OTHER = PROFILE.replace("pages_2M=0:64", "pages_2M=0:32").replace("cpu_shares=55", "cpu_shares=77")


@dataclass(frozen=True)
class Size:
    """What a process holds; memory in KiB."""

    files: int
    threads: int
    memory: int

    @classmethod
    def of(cls, pid: int) -> Size:
        """The least within a moment: what was just closed may not be yet."""
        found = []
        for _ in range(SAMPLES):
            found.append(cls._now(pid))
            time.sleep(BETWEEN)
        return min(found, key=lambda one: one.files)

    @classmethod
    def _now(cls, pid: int) -> Size:
        folder = Path(f"/proc/{pid}")
        lines = (folder / "status").read_text().splitlines()
        told = dict(line.split(":", 1) for line in lines)
        files = len(os.listdir(folder / "fd"))
        return cls(files, int(told["Threads"]), int(told["VmRSS"].split()[0]))

    def grown(self, first: Size, switches: int) -> bool:
        """Whether it is more, after so many switches, than what comes and goes and TuneD keeps."""
        more = (self.files - first.files, self.memory - first.memory - TUNED_KEEPS * switches)
        return more[0] > MORE_FILES or more[1] > MORE_MEMORY or self.threads > first.threads + 2

    def __str__(self) -> str:
        return f"{self.files} descriptors, {self.threads} threads, {self.memory} KiB"


def daemon(t: Sandbox) -> int:
    """The process of its TuneD, as this one sees it. Raises NotPrepared."""
    inside = os.stat(f"/proc/{t.pid}/ns/pid").st_ino
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            same = (folder / "ns/pid").stat().st_ino == inside
            if same and b"/usr/sbin/tuned" in (folder / "cmdline").read_bytes():
                return int(folder.name)
        except OSError:
            continue
    raise NotPrepared("no process of TuneD was found")


def switches(made: World, told: argparse.Namespace) -> Iterator[str]:
    """Switch to one and the other profile and off, again and again; what is said meanwhile.

    Raises AssertionError where something has grown, or is not as before.
    """
    pid, before = daemon(made.t), made.untuned()
    if told.files:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (told.files, told.files))
    began, done, first, size = time.monotonic(), 0, Size.of(pid), Size.of(pid)
    while done < told.count and time.monotonic() - began < told.seconds:
        made.forget_log()
        for profile in STOCK if told.stock else OURS:
            made.apply(profile)
        made.t.off()
        left = made.wait_until(before, made.untuned)
        assert not left, f"after {done} switches off leaves {left}"
        done += 3
        if done <= FIRST:
            first = Size.of(pid)
        if done % EVERY < 3:
            size = Size.of(pid)
            yield f"{done} switches, {time.monotonic() - began:.0f} s: {size}"
    size = Size.of(pid)
    yield f"after the first {FIRST}: {first}; after {done}: {size}"
    assert not size.grown(first, done), "it has grown"
    assert not made.kept(), f"still kept: {made.kept()}"


def starve(made: World, first: int) -> Iterator[str]:
    """Leave fewer and fewer descriptors to an apply and to an off, then all again.

    A daemon of which GLib has ended the process, as it does without a pipe, is put back by restore.
    """
    before = made.untuned()
    for left in range(first, -1, -1):
        how = []
        for phase in ("apply", "off"):
            if phase == "off":
                made.apply()
            made.forget_log()
            lived = _starved(made, phase, left)
            wrong = made.wait_until(before, made.untuned)
            said = made.t.log()[-LAST:]
            assert not wrong, f"{left} descriptors at {phase}: {wrong}; kept: {made.kept()}\n{said}"
            assert not made.kept(), f"{left} descriptors at {phase}: still kept: {made.kept()}"
            how.append(f"{phase} exact{'' if lived else ' by restore, the daemon ended'}")
            if not lived:
                made.t.run(["sh", "-c", ": >/etc/tuned/active_profile"])
                made.t.start()
        yield f"{left} descriptors: {', '.join(how)}"


def _starved(made: World, phase: str, left: int) -> bool:
    """One phase with so few descriptors, and an off with all; whether the daemon has lived."""
    pid = daemon(made.t)
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    few = len(os.listdir(f"/proc/{pid}/fd")) + left
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, hard))
    try:
        made.t.switch("all") if phase == "apply" else made.t.off()
        time.sleep(1)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        made.t.off()
    except (dbus.DBusException, ProcessLookupError):
        made.t.wait_until_gone()
        made.t.run(["tuned-virt", "restore"], check=False)
        return False
    return True


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.switches")
    parser.add_argument("count", type=int, nargs="?", default=10000)
    parser.add_argument("--version", choices=SUITES, default="2.20")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so many")
    parser.add_argument("--files", type=int, help="descriptors that the daemon may have")
    parser.add_argument("--stock", action="store_true", help="switch between TuneD's own profiles")
    parser.add_argument(
        "--starve", type=int, nargs="?", const=STARVED, help="descriptors run out, from so many"
    )
    told = parser.parse_args()
    if os.geteuid() != 0:
        print("root is required: sudo make check-switches", file=sys.stderr)
        return NOT_TRIED
    try:
        with known_state(print), world(told.version, {"other": OTHER}) as made:
            for text in starve(made, told.starve) if told.starve else switches(made, told):
                print(text, flush=True)
    except AssertionError as error:
        print(error, file=sys.stderr)
        return FAILED
    except (NotPrepared, Unusable) as error:
        print(error, file=sys.stderr)
        return NOT_TRIED
    return HELD


if __name__ == "__main__":
    sys.exit(main())
