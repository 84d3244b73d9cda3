# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt enable: set the profile that TuneD applies when it starts, also in images.

Needs no daemon and speaks to no bus: it checks that the profile exists, enables tuned.service and
writes the profile's name where TuneD looks for it when it starts. On a running machine
`tuned-adm profile` does this and applies the profile at once.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tuned_virt.cli.activation import Machine
from tuned_virt.cli.common import FINE, CouldNot


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


def run(options: argparse.Namespace) -> int:
    """Check, write and say. Raises CouldNot, with nothing changed."""
    if os.geteuid() != 0:
        raise CouldNot("root is required: sudo tuned-virt enable …")
    names = " ".join(options.profile)
    try:
        Machine(options.root).enable(options.profile)
    except OSError as error:
        raise CouldNot(f"cannot write {error.filename}: {error.strerror}") from error
    print(f"{names}: will be applied when TuneD starts. To apply it now: tuned-adm profile {names}")
    return FINE
