# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt guests: show where each guest is placed and why, its memory, drift and delay."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from typing import Any

from tuned_virt.cli import (
    guest_detail,
    guest_detail_text,
    guest_rows,
    guest_text,
    json_output,
    vcpu_waits,
)
from tuned_virt.cli.common import FINE, TO_REPORT
from tuned_virt.cli.guest_rows import GuestRow
from tuned_virt.cli.vcpu_waits import VcpuWaits
from tuned_virt.frozen_dataclasses import asdict
from tuned_virt.kernel.files import KernelFS

SAMPLE = 1.0
"""Seconds over which delays are measured, where --watch does not say otherwise."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    parser.add_argument(
        "guest",
        nargs="?",
        metavar="NAME",
        help="explain this guest in full (name, UUID or process)",
    )
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
    """Show the guests, or one; 1 where one has drifted, or does not have what was requested."""
    look = Look(KernelFS(), options.guest)
    watch = options.watch
    look.take(SAMPLE if watch is None else min(SAMPLE, watch))
    if watch is None:
        _show(options, look)
        return TO_REPORT if any(row.drift or row.ungranted for row in look.rows) else FINE
    try:
        while True:
            _show(options, look)
            time.sleep(watch)
            look.take()
    except KeyboardInterrupt:
        return FINE


class Look:
    """Guests at a moment, worst first, or one in full; delays are those since the look before."""

    def __init__(self, fs: KernelFS, name: str | None) -> None:
        self._fs = fs
        self._name = name
        self._before: VcpuWaits | None = None
        self._disks: dict[str, Any] | None = None
        self.rows: list[GuestRow] = []
        self.detail: dict[str, Any] = {}

    def take(self, seconds: float = 0.0) -> None:
        """Look; the first time delays are those of the next seconds. Raises CouldNot."""
        everyone = guest_rows.find(self._fs)
        guests = everyone if self._name is None else [guest_detail.chosen(everyone, self._name)]
        watched = [(one.pid, one.threads) for one in guests]
        before = self._before
        if before is None:
            before = vcpu_waits.read(self._fs, watched)
            time.sleep(seconds if any(before.waited.values()) else 0.0)
        self._before = vcpu_waits.read(self._fs, watched)
        if self._name is None:
            self.rows = guest_rows.rows(self._fs, guests, before, self._before)
            return
        row, detail = guest_detail.gather(self._fs, guests[0], everyone, before, self._before)
        if self._disks is None:  # libvirt is asked once
            self._disks = guest_detail.disks_of(self._fs, guests[0])
        self.rows, self.detail = [row], {**detail, **self._disks}

    def content(self) -> tuple[str, dict[str, Any]]:
        """For programs: kind and content."""
        if self._name is None:
            return "guests", {"guests": list(map(_content, self.rows))}
        return "guest", {"guests": [{**_content(self.rows[0]), **self.detail}]}

    def lines(self, columns: int | None) -> list[str]:
        """For people."""
        if self._name is None:
            return guest_text.lines(self.rows, columns)
        return guest_detail_text.lines(self.rows[0], self.detail, columns)


def _show(options: argparse.Namespace, look: Look) -> None:
    if options.json:
        json_output.emit(*look.content())
        sys.stdout.flush()
        return
    terminal = shutil.get_terminal_size() if sys.stdout.isatty() else None
    lines = look.lines(terminal.columns if terminal else None)
    if options.watch is None:
        print(*lines, sep="\n")
        return
    moment = time.strftime("%Y-%m-%d %H:%M:%S")
    shown = [f"tuned-virt guests, {moment}, every {options.watch:g} s", "", *lines]
    if terminal:
        print(guest_text.screen(shown, terminal.columns, terminal.lines), end="", flush=True)
    else:
        print(*shown, "", sep="\n", flush=True)


def _content(row: GuestRow) -> dict[str, Any]:
    return {**asdict(row), "problem": guest_rows.problem(row).value}
