# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt disable: undo enable, and restore the original values if the profile is active.

With names, only if one of these profiles is active, or included by the active one; without, if the
active one uses anything of tuned-virt-plus. Else nothing is changed: packages run it before they
are removed.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tuned_virt.cli import restore
from tuned_virt.cli.activation import Machine
from tuned_virt.cli.common import FINE, CouldNot
from tuned_virt.cli.daemon import Daemon, NotRunning
from tuned_virt.kernel import systemd


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


def run(options: argparse.Namespace) -> int:
    """Turn off and put back; 1 where something could not be. Raises CouldNot."""
    if os.geteuid() != 0:
        raise CouldNot("root is required: sudo tuned-virt disable")
    machine = Machine(options.root or Path("/"))
    active = [name for name in machine.active() if machine.uses(name, options.profile)]
    try:
        if options.root or systemd.in_chroot():
            code = FINE
        else:
            code = _live(bool(active), bool(options.profile))
        if active and machine.active():
            machine.disable()
    except OSError as error:
        raise CouldNot(f"cannot write {error.filename}: {error.strerror}") from error
    print(f"{' '.join(active)}: off" if active else "no such profile is active")
    return code


def _live(active: bool, named: bool) -> int:
    """Have TuneD put back; then what no TuneD holds, unless another profile is meant to stay."""
    if active:
        try:
            if not Daemon().off():
                raise CouldNot("TuneD could not turn its profile off: see /var/log/tuned/tuned.log")
        except NotRunning:
            pass
    elif named:
        return FINE
    return restore.put_back(restore.ENDED, "never")
