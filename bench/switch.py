# SPDX-License-Identifier: GPL-2.0-or-later
"""What switching to virtual-host-plus costs against TuneD's stock virtual-host, over D-Bus.

Both are switched to in turn under the same daemon, in one run, so that whatever else the machine
does hits both. Printed are medians and their ratio, per TuneD generation:

- nothing to change: KSM is already as the profile wants it
- KSM to change:     every switch to the profile finds KSM running, and its loop stops it
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

from bench.disks import switched
from tests.sandbox import SUITES, Sandbox

ROUNDS = 25
STOCK = "virtual-host"
OURS = "virtual-host-plus"
BETWEEN = "between"
"""An empty profile: each timed switch starts from the same state."""

SETTLE = 0.1
"""Seconds after it, for what the switch to it put off."""

LIMITS = {"nothing to change": 1.5, "KSM to change": 2.0}
RUN = Path("/sys/kernel/mm/ksm/run")


def measure(sandbox: Sandbox, before: str) -> tuple[float, float]:
    """Median ms of a switch to stock and to ours, with KSM's run as given before each."""
    times: dict[str, list[float]] = {STOCK: [], OURS: []}
    for turn in range(ROUNDS + 1):
        for profile, found in times.items():
            sandbox.switch(BETWEEN)
            time.sleep(SETTLE)
            RUN.write_text(before)
            taken = switched(sandbox, profile)
            if turn:
                found.append(taken)
    return statistics.median(times[STOCK]), statistics.median(times[OURS])


def main() -> int:
    """Print the table; 1 if a ratio is over its limit."""
    worst = 0
    print(f"{'TuneD':8}{'':20}{STOCK:>16}{OURS:>20}{'ratio':>8}{'at most':>9}")
    for version in SUITES:
        with Sandbox(version, profiles={BETWEEN: "[main]\nsummary=nothing\n"}) as sandbox:
            for case, before in (("nothing to change", "0"), ("KSM to change", "1")):
                stock, ours = measure(sandbox, before)
                ratio = ours / stock
                worst = max(worst, int(ratio > LIMITS[case]))
                print(
                    f"{version:8}{case:20}{stock:13.1f} ms{ours:17.1f} ms"
                    f"{ratio:8.2f}{LIMITS[case]:9.1f}"
                )
    return worst


if __name__ == "__main__":
    sys.exit(main())
