# SPDX-License-Identifier: GPL-2.0-or-later
"""KSM's controller on a machine of which pools have taken most memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.sandbox import REPO, wait_for
from tests.vm.daemon import SLOW_SECONDS, Tuned
from tests.vm.kernel import NODES, ksm

IN_POOLS = 0.8
"""Of each node's memory."""

SETTLING = 10
"""Seconds."""

WAKES = 2
"""Most that all threads of a profile may wake up in a second: TuneD's own one does once."""

PAGE_KIB = 2048


def seconds(pid: int) -> float:
    """CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def threads(pid: int) -> dict[str, int]:
    """How often each thread of a process has gone to sleep by itself."""
    found = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        lines = (folder / "status").read_text().splitlines()
        [line] = [line for line in lines if line.startswith("voluntary_ctxt_switches:")]
        found[folder.name] = int(line.split()[1])
    return found


def ksmd() -> int:
    """The kernel thread's number."""
    names = ((file.parent.name, file.read_text()) for file in Path("/proc").glob("[0-9]*/comm"))
    return next(int(pid) for pid, name in names if name == "ksmd\n")


def fill_pools() -> float:
    """Huge pages on each node; their part of the machine's memory."""
    taken = total = 0
    for node in NODES.glob("node[0-9]*"):
        words = (node / "meminfo").read_text().split("MemTotal:")[1].split()
        pool = node / f"hugepages/hugepages-{PAGE_KIB}kB/nr_hugepages"
        pool.write_text(str(int(int(words[0]) * IN_POOLS) // PAGE_KIB))
        taken += int(pool.read_text()) * PAGE_KIB
        total += int(words[0])
    return taken / total


def test_auto_does_nothing_where_pools_have_the_memory(tuned: Tuned, watched: int) -> None:
    """What pools hold is no shortage: ksmd does not run for it, and the controller sleeps.

    How much CPU that is depends on the machine that emulates this one: it is printed.
    """
    assert fill_pools() > IN_POOLS - 0.1
    script = REPO / "tests/system/ksm_memory.py"
    holder = subprocess.Popen(
        [sys.executable, str(script), "64", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout
        assert holder.stdout.readline() == b"ready\n"
        others = threads(tuned.pid)
        tuned.switch_to_ksm(mode="auto")
        wait_for("ksmd to be stopped", lambda: ksm("run") in "02", SLOW_SECONDS)
        time.sleep(SETTLING)
        asleep = threads(tuned.pid)
        before = (seconds(ksmd()), seconds(tuned.pid), ksm("full_scans"))
        time.sleep(watched)
        after = (seconds(ksmd()), seconds(tuned.pid), ksm("full_scans"))
        print(
            f"ksmd {after[0] - before[0]:.2f} s, TuneD {after[1] - before[1]:.2f} s in {watched} s"
        )
        assert (after[0], after[2]) == (before[0], before[2])
        own = {one: wakes for one, wakes in threads(tuned.pid).items() if one not in others}
        woken = {one: wakes - asleep.get(one, 0) for one, wakes in own.items()}
        print(f"threads of the profile woke {sorted(woken.values())} times")
        assert own
        assert sum(woken.values()) < WAKES * watched
        verified, lines = tuned.verify()
        assert verified, lines
    finally:
        holder.kill()
        holder.wait()
