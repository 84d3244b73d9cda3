# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt disable: return to the previous profile, and restore the original values.

With names, only if one of these profiles is active, or included by an active one; without, if an
active one uses anything of tuned-virt-plus. Else nothing is changed: packages run it before they
are removed. Other active profiles stay.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuned_virt.cli import json_output, restore
from tuned_virt.cli.activation import Machine, file_errors
from tuned_virt.cli.common import FINE, TO_REPORT, CouldNot
from tuned_virt.cli.daemon import Daemon, NotRunning
from tuned_virt.core import active_profile
from tuned_virt.core.active_profile import ActiveProfile
from tuned_virt.kernel import systemd, timeouts

CHOSEN_AGAIN = (
    "automatic mode would choose a profile of tuned-virt-plus again, so it is off; remove"
    " tuned-virt-plus-recommend first to keep it"
)
SET_AGAIN = (
    "/etc/tuned/ppd.conf names {}, which tuned-ppd sets again when it starts: change it there"
)
LEFT = "rollback=not_on_exit: TuneD leaves its settings until systemctl restart tuned"
UNFINISHED = "TuneD has not restored everything yet: see tuned-virt status"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    parser.add_argument(
        "profile",
        nargs="*",
        metavar="PROFILE",
        help="only if the active profile is or includes one of these",
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="the root directory of a system that is not running: change its files only",
    )
    json_output.add_option(parser)


@dataclass
class Disabled:
    """What became of it: profiles that are off now, what is active instead, and notes."""

    off: list[str] = field(default_factory=list)
    active: ActiveProfile = field(default_factory=ActiveProfile)
    notes: list[str] = field(default_factory=list)
    changed: bool = False
    code: int = FINE


def run(options: argparse.Namespace) -> int:
    """Turn off and put back; 1 where something could not be. Raises CouldNot."""
    if os.geteuid() != 0:
        raise CouldNot("root is required: sudo tuned-virt disable")
    with contextlib.ExitStack() as stack:
        stack.enter_context(file_errors())
        if options.json:  # what is restored is said line by line
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        files_only = bool(options.root) or systemd.in_chroot()
        machine = Machine(options.root or Path("/"))
        done = disable(machine, options.profile, None if files_only else _daemon(), files_only)
    if options.json:
        content = {
            "changed": done.changed,
            "off": done.off,
            "profiles": list(done.active.all),
            "mode": active_profile.mode(done.active),
            "notes": done.notes,
        }
        json_output.emit("disable", content)
    else:
        print(*_lines(done, options.profile), sep="\n")
    return done.code


def disable(
    machine: Machine, named: Collection[str], daemon: Daemon | None, files_only: bool
) -> Disabled:
    """Turn off what is ours, or includes one of the named, and return to what was before."""
    active = daemon.active() if daemon else ActiveProfile()
    active = active if active.all else machine.active()
    off = [name for name in active.all if machine.profiles.uses(name, named)]
    done = Disabled(off, active)
    if off:
        _plan(machine, daemon, active, done)
        if daemon:
            _switch(daemon, active, done, machine.leaves_tuning())
        machine.select(done.active)
        machine.forget()
        done.changed = True
        if not daemon and done.active.all and not files_only:
            done.notes.append("TuneD is not running: systemctl restart tuned applies it")
    if not files_only and (off or not named):
        done.code = restore.put_back(restore.ENDED, "never")
    if off and daemon and restore.held_needlessly(done.active.all):
        done.code = TO_REPORT
        done.notes.append(LEFT if machine.leaves_tuning() else UNFINISHED)
    return done


def _plan(machine: Machine, daemon: Daemon | None, active: ActiveProfile, done: Disabled) -> None:
    """What is to be active then, and what will come in its way."""
    done.active, done.notes = machine.returns_to(active, done.off)
    if done.active.automatic and _chooses_ours(machine, daemon):
        done.active = replace(done.active, automatic=False)
        done.notes.append(CHOSEN_AGAIN)
    by_ppd = sorted(machine.ppd_names() & {*done.off})
    if by_ppd:
        done.notes.append(SET_AGAIN.format(", ".join(by_ppd)))


def _daemon() -> Daemon | None:
    try:
        return Daemon()
    except NotRunning:
        return None


def _chooses_ours(machine: Machine, daemon: Daemon | None) -> bool:
    if daemon is None:
        return machine.chooses_ours()
    return any(map(machine.profiles.uses, daemon.recommended().split()))


def _switch(daemon: Daemon, active: ActiveProfile, done: Disabled, leaves: bool) -> None:
    """Have TuneD apply it, and wait until what it held for ours is put back.

    It is not where TuneD leaves its tuning at `off`, as it may be told to.
    """
    wanted = done.active
    drops_post_loaded = active.post_loaded != wanted.post_loaded  # only `off` does so
    nothing = not (wanted.all or wanted.automatic)
    turns_off = drops_post_loaded or nothing
    if turns_off and not daemon.off():
        raise CouldNot("TuneD could not turn its profile off: see /var/log/tuned/tuned.log")
    if wanted.automatic:
        daemon.automatic()
        done.active = daemon.active()
    elif wanted.all:
        daemon.switch(" ".join(wanted.names))
    deadline = time.monotonic() + (0 if leaves and turns_off else timeouts.RELEASED)
    while restore.held_needlessly(wanted.all) and time.monotonic() < deadline:
        time.sleep(0.05)


def _lines(done: Disabled, named: Collection[str]) -> list[str]:
    if not done.off:
        which = "none of these profiles" if named else "no profile of tuned-virt-plus"
        return [f"{which} is active; active now: {done.active}"]
    now = f"{' '.join(done.off)}: off; active now: {done.active}"
    return [now, *(f"note: {note}" for note in done.notes)]
