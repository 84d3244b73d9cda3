# SPDX-License-Identifier: GPL-2.0-or-later
"""How long commands take from their start to their end, beside `tuned-adm active`.

With TuneD running and virtual-host-plus active, in a sandbox. Printed are the median and the
fastest of several runs, and of the fastest one its CPU time: on a busy machine the rest is waiting.
"""

from __future__ import annotations

import json
import sys

from tests.sandbox import PYTHON, Sandbox

ROUNDS = 15
VERSION = "latest"
LIMITS = {
    "tuned-virt --help": 80,
    "tuned-virt role": 80,
    "tuned-virt status": 250,
    "tuned-virt enable --help": None,
    "tuned-virt disable --help": None,
    "tuned-adm active": None,
}
"""Milliseconds on an idle machine."""

TIMER = """
import json, resource, subprocess, sys, time
runs = []
for _ in range(int(sys.argv[1])):
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    runs.append((1000 * wall, 1000 * cpu))
print(json.dumps(sorted(runs)))
"""


def main() -> int:
    """Print the table; 1 if the fastest run of a command is over its limit."""
    worst = 0
    print(f"{'':28}{'median':>12}{'fastest':>12}{'its CPU time':>16}{'at most':>10}")
    with Sandbox(VERSION) as sandbox:
        sandbox.switch("virtual-host-plus")
        for command, limit in LIMITS.items():
            timed = [PYTHON, "-c", TIMER, str(ROUNDS), *command.split()]
            runs = json.loads(sandbox.run(timed).stdout)
            (fastest, cpu), median = runs[0], runs[len(runs) // 2][0]
            worst = max(worst, int(limit is not None and fastest > limit))
            most = f"{limit} ms" if limit else "-"
            print(f"{command:28}{median:9.0f} ms{fastest:9.0f} ms{cpu:13.0f} ms{most:>10}")
    return worst


if __name__ == "__main__":
    sys.exit(main())
