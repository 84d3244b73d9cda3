# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt log: show what was changed on this machine, when, and why."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from typing import Any

from tuned_virt.cli import json_output
from tuned_virt.cli.common import FINE, CouldNot
from tuned_virt.core.journal import FILE, TUNED, Entry, Journal
from tuned_virt.core.plan import shown
from tuned_virt.registry import tuners


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    parser.add_argument("-n", type=int, default=50, metavar="N", help="the last N changes (50)")
    parser.add_argument(
        "--plugin",
        choices=(*tuners(), TUNED),
        help=f"of one plugin only; {TUNED}: of TuneD's own plugins",
    )
    json_output.add_option(parser)


def run(options: argparse.Namespace) -> int:
    """Print the journal's end. Raises CouldNot."""
    if options.n < 1:
        raise CouldNot(f"-n: '{options.n}' is not valid: a whole number from 1")
    try:
        entries = _entries(options.n, options.plugin)
    except OSError as error:
        raise CouldNot(f"cannot read {FILE}: {error}") from error
    if options.json:
        json_output.emit("log", {"changes": list(map(_content, entries))})
    elif entries:
        print("\n".join(map(_line, entries)))
    else:
        print("no changes are recorded")
    return FINE


def gather(most: int) -> dict[str, Any]:
    """The last changes, as JSON has them. Raises OSError."""
    return {"changes": list(map(_content, _entries(most, None)))}


def _entries(most: int, plugin: str | None) -> list[Entry]:
    """The last so many, of one plugin or of all. Raises OSError."""
    return [one for one in Journal().entries() if plugin in (None, one.plugin)][-most:]


def _content(entry: Entry) -> dict[str, Any]:
    return {**asdict(entry), "when": json_output.moment(entry.when)}


def _line(entry: Entry) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.when))
    return (
        f"{when}  {entry.plugin}  {shown(entry.setting)}: '{entry.before}' -> '{entry.after}'"
        f"  ({entry.why})"
    )
