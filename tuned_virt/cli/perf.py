# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt perf: run perf kvm for a guest, with its kernel's symbols fetched from it."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from tuned_virt.cli import guest_detail, guest_rows, perf_command, perf_host, perf_symbols
from tuned_virt.cli.common import FINE, TO_REPORT, CouldNot
from tuned_virt.cli.guest_rows import SeenGuest
from tuned_virt.cli.perf_command import PerfAction
from tuned_virt.cli.perf_symbols import GuestSymbols
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import guest_configurations
from tuned_virt.model.guest import printable

NOWHERE = "FOLDER"
"""What stands in a printed command for a folder that is made when it is run."""

STOPPED = (-signal.SIGINT, 128 + signal.SIGINT)
"""perf's end by Ctrl-C, which is how a recording ends."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    parser.add_argument("guest", metavar="GUEST", help="the guest's name, UUID or process")
    parser.add_argument(
        "action",
        metavar="ACTION",
        choices=[one.value for one in PerfAction],
        help="record, top or report of samples; stat, stat-record or stat-report of exits to KVM",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--ssh",
        metavar="[USER@]HOST",
        help="read the guest's files by a login, not through its agent",
    )
    source.add_argument(
        "--guestmount",
        metavar="FOLDER",
        help="the guest's root is mounted here (sshfs -o direct_io)",
    )
    source.add_argument(
        "--symbols", metavar="FOLDER", help="use the files that --keep has kept in this folder"
    )
    parser.add_argument(
        "--keep", metavar="FOLDER", help="keep the guest's files here, for a later report"
    )
    parser.add_argument(
        "--print", action="store_true", help="print the command of perf, and do not run it"
    )
    parser.set_defaults(passed_on=[])
    parser.epilog = "What follows -- are options of perf's own, such as: -- -g sleep 10"


def run(options: argparse.Namespace) -> int:
    """Find the guest, fetch its symbols, run perf. Raises CouldNot."""
    action = PerfAction(options.action)
    _check(options, action)
    fs = KernelFS()
    guest = _guest(fs, options.guest) if _needs_guest(options, action) else None
    pid = guest.pid if guest else None
    obstacles = perf_host.obstacles(fs, action, pid)
    _say(perf_host.remarks(fs, action))
    if options.print:
        _say(obstacles)
    elif obstacles:
        raise CouldNot("\n".join(obstacles))
    with _Ending() as ending, _symbols(options, action, guest) as symbols:
        command = perf_command.command(action, symbols, pid, options.passed_on)
        if options.print:
            print(shlex.join(command))
            return TO_REPORT if obstacles else FINE
        ending.run(command)
    if action is PerfAction.RECORD and options.keep is None and options.symbols is None:
        _say(
            [
                "for the report the guest's symbols are fetched again, which serves until it is"
                " restarted; --keep FOLDER keeps them"
            ]
        )
    return FINE


def _check(options: argparse.Namespace, action: PerfAction) -> None:
    given = {name: getattr(options, name) for name in ("ssh", "guestmount", "symbols", "keep")}
    if action.counts_exits and any(given.values()):
        names = ", ".join(f"--{name}" for name, value in given.items() if value)
        raise CouldNot(
            f"{action.value} uses no symbols of the guest: {names} is for record, top and report"
        )
    if options.symbols and options.keep:
        raise CouldNot("--keep keeps what is fetched, and with --symbols nothing is")


def _needs_guest(options: argparse.Namespace, action: PerfAction) -> bool:
    return action.samples or not (action.counts_exits or options.symbols or options.ssh)


def _guest(fs: KernelFS, name: str) -> SeenGuest:
    try:
        return guest_detail.chosen(guest_rows.find(fs), name)
    except CouldNot as error:
        known = guest_configurations.stopped()
        if name in known:
            raise CouldNot(f"guest {printable(name)} is not running") from error
        raise


def _say(texts: Iterator[str] | Sequence[str]) -> None:
    for text in texts:
        print(f"tuned-virt: {text}", file=sys.stderr)


@contextlib.contextmanager
def _symbols(
    options: argparse.Namespace, action: PerfAction, guest: SeenGuest | None
) -> Iterator[Sequence[str]]:
    """perf's options for the guest's symbols, which are there as long as the block lasts."""
    if action.counts_exits:
        yield ()
    elif options.symbols:
        _serve(perf_symbols.kept(options.symbols), "")
        yield perf_command.copied(options.symbols)
    elif options.print and not options.keep:
        _say([f"{NOWHERE} is made when the command is run, unless --keep names it"])
        yield perf_command.mounted(NOWHERE) if options.guestmount else perf_command.copied(NOWHERE)
    else:
        with perf_symbols.folder(options.keep) as folder:
            yield _fetched(options, guest, folder)


def _fetched(options: argparse.Namespace, guest: SeenGuest | None, folder: str) -> Sequence[str]:
    if options.guestmount:
        assert guest is not None
        _serve(perf_symbols.from_root(options.guestmount), "; mount it with: sshfs -o direct_io")
        perf_symbols.link_root(folder, guest.pid, options.guestmount)
        return perf_command.mounted(folder)
    if options.ssh:
        symbols = perf_symbols.over_ssh(options.ssh)
    else:
        assert guest is not None
        symbols = perf_symbols.by_agent(guest)
    _serve(symbols, "")
    perf_symbols.write(folder, symbols)
    return perf_command.copied(folder)


def _serve(symbols: GuestSymbols, remedy: str) -> None:
    why = perf_symbols.fault(symbols)
    if why:
        raise CouldNot(f"the guest's symbols cannot be used: {why}{remedy}")


class _Ending:
    """SIGTERM and SIGHUP end perf, and then this command, which leaves no file of the guest."""

    def __init__(self) -> None:
        self._number = 0
        self._starting = False
        self._perf: subprocess.Popen[bytes] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Ending:
        self._before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)}
        for one, handler in self._before.items():
            if handler is not signal.SIG_IGN:  # nohup
                signal.signal(one, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _end(self, number: int, _frame: object) -> None:
        self._number = number
        if self._perf is not None:
            self._perf.terminate()
        elif not self._starting:
            raise SystemExit(128 + number)

    def run(self, command: Sequence[str]) -> None:
        """perf has the terminal; Ctrl-C is for it. Raises CouldNot where it fails."""
        self._starting = True
        try:
            self._perf = subprocess.Popen(command)
        except OSError as error:
            raise CouldNot(f"perf: {error.strerror}") from error
        if self._number:
            self._perf.terminate()
        code = _ended(self._perf)
        if self._number:
            raise SystemExit(128 + self._number)
        if code and code not in STOPPED:
            raise CouldNot(f"perf ended with exit code {code}: {shlex.join(command)}")


def _ended(perf: subprocess.Popen[bytes]) -> int:
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            return perf.wait()
