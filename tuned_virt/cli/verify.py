# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt verify: compare every setting of the active profile with the machine.

TuneD's own `tuned-adm verify` says only yes or no (redhat-performance/tuned issue 351).
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from tuned_virt.cli import findings, json_output
from tuned_virt.cli.common import FINE, TO_REPORT, CouldNot
from tuned_virt.cli.daemon import Daemon
from tuned_virt.core.originals import Originals


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    json_output.add_option(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print only what differs")
    parser.add_argument(
        "-i",
        "--ignore-missing",
        action="store_true",
        help="do not fail for settings that this kernel or machine does not have",
    )


def run(options: argparse.Namespace) -> int:
    """Verify and print. Raises CouldNot."""
    daemon = Daemon()
    profile = daemon.active_profile()
    if not profile:
        raise CouldNot("no profile is active: tuned-adm profile virtual-host-plus")
    verified, log = daemon.verify(options.ignore_missing)
    lines = findings.parse(log)
    remarks = Originals().remarks()
    lines += [findings.VerifyLine("note", "originals", remark) for remark in remarks]
    if options.json:
        content = {"profile": profile, "verified": verified, "lines": list(map(asdict, lines))}
        json_output.emit("verify", content)
    else:
        _print(profile, verified, lines, options.quiet)
    return FINE if verified and not remarks else TO_REPORT


def _print(profile: str, verified: bool, lines: list[findings.VerifyLine], quiet: bool) -> None:
    for line in lines:
        if not quiet or line.result == "failed":
            print(f"{line.result:8}{line.text}")
    differing = findings.differing(lines)
    if verified:
        print(f"{profile}: verified, {len(lines)} lines")
    elif differing:
        print(f"{profile}: {len(differing)} of {len(lines)} differ: {findings.summary(differing)}")
    else:
        print(f"{profile}: not verified; TuneD gave no line for it, see /var/log/tuned/tuned.log")
