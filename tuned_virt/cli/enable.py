# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt enable: set the profile that TuneD applies when it starts, also in images.

Needs no daemon and speaks to no bus: it checks that TuneD can load the profile and all that it
includes, enables tuned.service and writes the profile's name where TuneD looks for it when it
starts: all of it, or nothing. On a running machine `tuned-adm profile` does this and applies the
profile at once.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tuned_virt.cli import json_output
from tuned_virt.cli.activation import Machine, file_errors
from tuned_virt.cli.common import FINE, CouldNot

REPLACED = (
    "tuned-ppd replaces it when it starts, with a profile that /etc/tuned/ppd.conf names: name this"
    " one there, see tuned-virt-enable(1)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    parser.add_argument(
        "profile", nargs="+", metavar="PROFILE", help="the later profile takes precedence"
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("/"),
        metavar="DIR",
        help="root directory of the system to change, for example an installer's /mnt/sysroot (/)",
    )
    json_output.add_option(parser)


def run(options: argparse.Namespace) -> int:
    """Check, write and say. Raises CouldNot, with nothing changed."""
    if os.geteuid() != 0:
        raise CouldNot("root is required: sudo tuned-virt enable …")
    names = " ".join(options.profile)
    with file_errors():
        machine = Machine(options.root)
        changed = machine.enable(options.profile)
        notes = [REPLACED] if machine.ppd_replaces(options.profile) else []
    if options.json:
        content = {"changed": changed, "profiles": options.profile, "notes": notes}
        json_output.emit("enable", content)
        return FINE
    if changed:
        now = f"To apply it now: tuned-adm profile {names}"
        print(f"{names}: will be applied when TuneD starts. {now}")
    else:
        print(f"{names}: unchanged; TuneD applies it when it starts")
    print(*(f"note: {note}" for note in notes), sep="\n", end="\n" if notes else "")
    return FINE
