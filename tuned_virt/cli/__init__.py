# SPDX-License-Identifier: GPL-2.0-or-later
"""The `tuned-virt` command. Exit codes: 0 fine, 1 something to report, 2 could not do it."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

from tuned_virt import __version__
from tuned_virt.cli import (
    disable,
    disks,
    enable,
    guests,
    hugepages,
    import_,
    log,
    map,
    plan,
    restore,
    role,
    snapshot,
    status,
    verify,
)
from tuned_virt.cli.common import COULD_NOT, CouldNot

COMMANDS = (
    status,
    guests,
    plan,
    map,
    snapshot,
    hugepages,
    disks,
    verify,
    log,
    restore,
    import_,
    role,
    enable,
    disable,
)


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(
        prog="tuned-virt",
        description="Show, verify and undo what tuned-virt-plus does to this KVM host or guest.",
        epilog="Exit codes: 0 fine, 1 something to report, 2 could not do it.",
    )
    top.add_argument("--version", action="version", version=f"tuned-virt-plus {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        summary = (module.__doc__ or "").splitlines()[0].partition(": ")[2]
        command = commands.add_parser(module.NAME, help=summary, description=summary)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    top = parser()
    _complete(top)
    options = top.parse_args(arguments)
    try:
        code: int = options.run(options)
    except CouldNot as error:
        print(f"tuned-virt: {error}", file=sys.stderr)
        return COULD_NOT
    return code


def _complete(top: argparse.ArgumentParser) -> None:
    """Answer bash, where it asks what may come next, and end."""
    if "_ARGCOMPLETE" in os.environ:
        with contextlib.suppress(ImportError):
            import argcomplete

            argcomplete.autocomplete(top)


def entry() -> None:
    """The command's process: like any filter it ends when nobody reads its output."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
