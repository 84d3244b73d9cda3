# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt guests: show where each guest is placed and why, its memory, drift and delay."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

from tuned_virt.cli import guest_rows, guest_text, json_output, vcpu_waits
from tuned_virt.cli.common import FINE, TO_REPORT
from tuned_virt.cli.guest_rows import GuestRow
from tuned_virt.cli.vcpu_waits import VcpuWaits
from tuned_virt.frozen_dataclasses import asdict
from tuned_virt.kernel.files import KernelFS

SAMPLE = 1.0
"""Seconds over which delays are measured, where --watch does not say otherwise."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    json_output.add_option(parser)
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=2.0,
        metavar="SECONDS",
        help="refresh every SECONDS seconds (default: 2)",
    )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("0.1 to 3600 seconds")
    return seconds


def run(options: argparse.Namespace) -> int:
    """Show the guests; 1 where one has drifted, or does not have what was requested."""
    fs = KernelFS()
    if options.watch is None:
        rows, _ = gather(fs, None, SAMPLE)
        _show(options, rows)
        return TO_REPORT if any(row.drift or row.ungranted for row in rows) else FINE
    seconds = options.watch
    rows, before = gather(fs, None, min(SAMPLE, seconds))
    try:
        while True:
            _show(options, rows)
            time.sleep(seconds)
            rows, before = gather(fs, before, 0.0)
    except KeyboardInterrupt:
        return FINE


def gather(
    fs: KernelFS, before: VcpuWaits | None, seconds: float
) -> tuple[list[GuestRow], VcpuWaits]:
    """A row for each QEMU process, worst first, and the waits until now.

    Delays are those since `before`; without it, of the next seconds.
    """
    guests = guest_rows.find(fs)
    watched = [(one.pid, one.threads) for one in guests]
    if before is None:
        before = vcpu_waits.read(fs, watched)
        time.sleep(seconds if any(before.waited.values()) else 0.0)
    now = vcpu_waits.read(fs, watched)
    return guest_rows.rows(fs, guests, before, now), now


def _show(options: argparse.Namespace, rows: Sequence[GuestRow]) -> None:
    if options.json:
        json_output.emit("guests", {"guests": list(map(_content, rows))})
        return
    terminal = shutil.get_terminal_size() if sys.stdout.isatty() else None
    lines = guest_text.lines(rows, terminal.columns if terminal else None)
    if options.watch is None:
        print(*lines, sep="\n")
        return
    moment = time.strftime("%Y-%m-%d %H:%M:%S")
    shown = [f"tuned-virt guests, {moment}, every {options.watch:g} s", "", *lines]
    if terminal:
        print(guest_text.screen(shown, terminal.lines), end="", flush=True)
    else:
        print(*shown, "", sep="\n", flush=True)


def _content(row: GuestRow) -> dict[str, Any]:
    return {**asdict(row), "problem": guest_rows.problem(row).value}
