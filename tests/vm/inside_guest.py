# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in a guest of tests/tuned_guest.py: TuneD applies a profile, verifies it and is off again.

    python3 -m tests.vm.inside_guest PROFILE

Prints a line of JSON after RESULT: what verify has said, what has changed meanwhile, and what is
not back afterwards.
"""

from __future__ import annotations

import json
import sys
import time

RESULT = "RESULT "

SLOW_SECONDS = 900
"""Deadline for what takes a second or two on a machine: this one may be emulated by an emulated."""


def main() -> None:
    """See the module."""
    from tests.vm import daemon, machine
    from tests.vm.kernel import changed, state

    daemon.SLOW_SECONDS = SLOW_SECONDS
    with machine.system_bus():
        tuned = daemon.Tuned()
        tuned.forget_profile()
        tuned.start()
        say("TuneD is up")
        before = state()
        tuned.switch(sys.argv[1])
        say("applied")
        verified, lines = tuned.verify()
        while not verified and "still being applied" in lines:
            verified, lines = tuned.verify()
        say("verified" if verified else lines)
        found = {"verified": verified, "lines": lines, "changed": changed(before)}
        tuned.off()
        say("off")
        until = time.monotonic() + SLOW_SECONDS
        while changed(before) and time.monotonic() < until:
            time.sleep(1)
        print(RESULT + json.dumps({**found, "left": changed(before)}), flush=True)
        tuned.stop()


def say(what: str) -> None:
    """With the seconds since the guest's start."""
    with open("/proc/uptime") as file:
        print(f"{file.read().split('.')[0]} s: {what}", flush=True)


if __name__ == "__main__":
    main()
