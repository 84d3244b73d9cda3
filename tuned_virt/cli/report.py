# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt report: write a page about this host: guests, NUMA map, findings, pools, KSM."""

from __future__ import annotations

import argparse

from tuned_virt.cli import page, report_input, report_view
from tuned_virt.cli.common import FINE
from tuned_virt.kernel.files import KernelFS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    parser.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="the page, such as report.html"
    )
    parser.add_argument(
        "--snapshot", metavar="FILE", help="a host with its guests, by tuned-virt snapshot"
    )


def run(options: argparse.Namespace) -> int:
    """Gather and write; changes nothing else. Raises CouldNot."""
    if options.snapshot:
        given = report_input.of_snapshot(options.snapshot)
    else:
        given = report_input.here(KernelFS())
    page.write(options.output, page.page("report.html.jinja", report_view.view(given)))
    print(f"{options.output} is written: {given.source}, {given.when}")
    return FINE
