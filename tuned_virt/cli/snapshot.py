# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt snapshot: write this host and its guests to one file, to look at it elsewhere."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tuned_virt.cli import collection, json_output, planning_input, snapshot_file
from tuned_virt.cli.collected import AuditSources, Collected, GuestDocument
from tuned_virt.cli.common import FINE, CouldNot
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.host_facts import Fact


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    planning_input.add_sources(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="default: standard output")


def run(options: argparse.Namespace) -> int:
    """Gather and write."""
    found = _collected(options.host, options.guest)
    content = snapshot_file.content(found)
    for note in content["notes"]:
        print(f"note: {note}", file=sys.stderr)
    text = json.dumps(json_output.document("snapshot", content))
    if options.output:
        try:
            Path(options.output).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise CouldNot(f"{options.output}: {error.strerror}") from error
    else:
        print(text)
    return FINE


def _collected(capabilities: str | None, files: list[str]) -> Collected:
    """This host, or what files say of one. Raises CouldNot."""
    if not capabilities and not files:
        return collection.here(KernelFS())
    known = planning_input.gather(capabilities, files)
    documents = tuple(
        GuestDocument(guest.name, one.xml) for guest, one in zip(known.guests, known.described)
    )
    audit = AuditSources(known.host, documents=documents)
    when = json_output.moment(time.time())
    return Collected("", when, Fact(known, ""), Fact(audit, ""))
