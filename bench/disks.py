# SPDX-License-Identifier: GPL-2.0-or-later
"""Setting and verifying schedulers of many disks, against TuneD's own disk plugin in the same run.

Both set the same scheduler on the same loop devices, by a switch between profiles under one daemon,
over D-Bus; a switch to a profile without disks is measured as well and taken off. Printed are
medians of several rounds, in ms:

- all to change: every device has another scheduler
- all right:     every device has the scheduler already
- verify:        of what is applied
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import IO

from tests.loopdev import loops, scheduler, set_all
from tests.sandbox import Sandbox, wait_for

SECTION = {
    "ours": "[blk_elevator_virt]\nrole=host\nhost_other={word}\ndevices=loop4???\n",
    "TuneD's": "[disk]\nelevator={word}\ndevices={names}\ndynamic=0\n",
}
NOTHING = "[main]\nsummary=nothing\n"
BETWEEN = "between"

TO_CHANGE, RIGHT, VERIFY = "all to change", "all right", "verify"
LIMITS = {TO_CHANGE: 200.0, RIGHT: 25.0, VERIFY: 25.0}
"""ms that ours may take with 100 devices or fewer; of more in proportion."""

WORD, OTHER = "mq-deadline", "none"
SETTLE = 0.2
SLOW_SECONDS = 60


def milliseconds(work: Callable[[], object]) -> float:
    """What some work takes."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def switched(sandbox: Sandbox, profile: str) -> float:
    """ms of a switch, from the D-Bus call until the profile is applied."""
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(sandbox.log_file.open())
        log.seek(0, 2)

        def switch() -> None:
            nonlocal log
            done, message = sandbox.call("switch_profile", profile)
            assert done, str(message)
            text = log.read()
            while "applied\n" not in text:
                time.sleep(0.0002)
                another = begun_anew(log)
                text += log.read()
                if another:
                    log = stack.enter_context(sandbox.log_file.open())

        return milliseconds(switch)


def begun_anew(log: IO[str]) -> bool:
    """Whether TuneD writes to another file by now: a thousand lines a switch soon are a MiB."""
    try:
        return os.stat(log.name).st_ino != os.fstat(log.fileno()).st_ino
    except FileNotFoundError:
        return False


def still_to_set(names: list[str]) -> float:
    """ms until the last device is set; 0 where all are, as with few devices: ours goes on in a
    thread with what takes longer than 2 s."""
    wrong = [name for name in names if scheduler(name) != WORD]
    return milliseconds(lambda: wait_until_all(wrong, WORD)) if wrong else 0.0


def wait_until_all(names: list[str], word: str) -> None:
    """Until the last device has a scheduler."""
    wait_for(
        f"all have {word}",
        lambda: all(scheduler(name) == word for name in reversed(names)),
        SLOW_SECONDS,
    )


def measure(sandbox: Sandbox, names: list[str], profile: str, rounds: int) -> dict[str, float]:
    """Medians of one plugin, an empty profile's taken off."""
    found: dict[str, list[float]] = {case: [] for case in LIMITS}
    sandbox.switch(BETWEEN)
    put_back = OTHER
    set_all(names, put_back)
    for _ in range(rounds):
        for case, before in ((TO_CHANGE, OTHER), (RIGHT, WORD)):
            sandbox.switch(BETWEEN)
            wait_until_all(names, put_back)  # of a thousand, some are after the switch
            time.sleep(SETTLE)
            set_all(names, before)
            put_back = before
            empty = switched(sandbox, f"{BETWEEN}-too")
            time.sleep(SETTLE)
            took = switched(sandbox, profile) - empty
            found[case].append(took + still_to_set(names))
        found[VERIFY].append(milliseconds(sandbox.verify))
        assert sandbox.verify(), sandbox.verify_lines
    return {case: statistics.median(times) for case, times in found.items()}


def main() -> int:
    """Print the table; 1 if ours takes longer than its limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--disks", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tuned", default="2.25", help="2.20, 2.25 or latest")
    arguments = parser.parse_args()
    with loops(arguments.disks) as names:
        wanted = {"word": WORD, "names": ",".join(names)}
        profiles = {
            name.partition("'")[0].lower(): f"{NOTHING}{section.format(**wanted)}"
            for name, section in SECTION.items()
        }
        empty = {BETWEEN: NOTHING, f"{BETWEEN}-too": NOTHING}
        with Sandbox(arguments.tuned, profiles={**profiles, **empty}) as sandbox:
            ours, stock = (
                measure(sandbox, names, profile, arguments.rounds) for profile in profiles
            )
    print(f"{arguments.disks} loop devices, TuneD {arguments.tuned}, {arguments.rounds} rounds")
    print(f"{'':16}{'ours':>12}{'TuneDs own':>14}{'ratio':>9}{'at most':>11}")
    worst = 0
    for case, per_hundred in LIMITS.items():
        limit = per_hundred * max(arguments.disks, 100) / 100
        worst = max(worst, int(ours[case] > limit))
        ratio = stock[case] / ours[case] if ours[case] > 0 else float("inf")
        print(f"{case:16}{ours[case]:9.1f} ms{stock[case]:11.1f} ms{ratio:9.1f}{limit:8.0f} ms")
    return worst


if __name__ == "__main__":
    sys.exit(main())
