# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt snapshot: write this host and its guests to one file, to look at it elsewhere."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from tuned_virt.cli import collection, json_output, planning_input, redaction, snapshot_file
from tuned_virt.cli.collected import AuditSources, Collected, GuestDocument
from tuned_virt.cli.common import FINE, CouldNot
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.host_facts import Fact


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    planning_input.add_sources(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="default: standard output")
    parser.add_argument(
        "--no-redact",
        action="store_true",
        help="keep names, addresses, paths and passwords as they are",
    )


def run(options: argparse.Namespace) -> int:
    """Gather and write."""
    content = snapshot_file.content(_collected(options.host, options.guest))
    if not options.no_redact:
        content = redaction.redacted(json.loads(json.dumps(content)))
    for note in content["notes"]:
        print(f"note: {note}", file=sys.stderr)
    text = json.dumps(json_output.document("snapshot", content))
    if options.output:
        _write(options.output, text, 0o600 if options.no_redact else 0o666)
    else:
        print(text)
    return FINE


def _write(file: str, text: str, mode: int) -> None:
    """Raises CouldNot; a file that is there keeps its mode."""
    try:
        with open(
            os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8"
        ) as opened:
            opened.write(text + "\n")
    except OSError as error:
        raise CouldNot(f"{file}: {error.strerror}") from error


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
