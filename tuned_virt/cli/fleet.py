# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots of many hosts, one after the other: from a folder, or a line each; JSON lines out.

Only as many are in memory as processes work on them. What is wrong with one is said on its line.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, BinaryIO

from tuned_virt.cli import json_output, planning_input, snapshot_file
from tuned_virt.cli.common import COULD_NOT, CouldNot
from tuned_virt.cli.fleet_summary import FleetSummary
from tuned_virt.cli.snapshot_file import MOST_BYTES, STANDARD_INPUT, Snapshot
from tuned_virt.frozen_dataclasses import dataclass

ENDINGS = (".json", ".jsonl")
"""Of files that a folder is asked for; each line of a .jsonl is a snapshot."""

MOST_JOBS = 256

Work = Callable[[Snapshot], "HostResult"]


@dataclass(frozen=True)
class HostResult:
    """What a command says of one host, as JSON has it, and its exit status for that."""

    content: Mapping[str, Any]
    code: int


@dataclass(frozen=True)
class FleetHost:
    """A host's snapshot: where it is from, and its text, "" for a file that is read when its turn
    comes; or why there is none."""

    source: str
    text: bytes = b""
    error: str = ""


def add_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Options of a command that looks at many hosts."""
    parser.add_argument(
        "--snapshots",
        metavar="DIR|FILE|-",
        help=f"{what} many hosts: a folder of snapshots, or a file or standard input with one a"
        " line; prints a line of JSON per host",
    )
    parser.add_argument(
        "--summary",
        action="store_true",
        help="with --snapshots: print what all hosts have together instead of each",
    )
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=_jobs,
        default=0,
        help="with --snapshots: processes that work (default: one per CPU)",
    )


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_JOBS:
        raise argparse.ArgumentTypeError(f"'{text}' is not valid: 1 to {MOST_JOBS} processes")
    return int(text)


def refuse_without(options: argparse.Namespace) -> None:
    """Raises CouldNot for options that are for many hosts, where one is looked at."""
    for name in ("summary", "jobs"):
        if getattr(options, name) and not options.snapshots:
            raise CouldNot(f"--{name} is for many hosts: give their snapshots with --snapshots")


def refuse_beside(options: argparse.Namespace, *others: str) -> None:
    """Raises CouldNot for options that name one host, or another form of output."""
    for name in others:
        if getattr(options, name, None):
            raise CouldNot(f"--{name} does not go with --snapshots")


def run(kind: str, options: argparse.Namespace, work: Work) -> int:
    """What `work` makes of each host, a line each, or a summary. Raises CouldNot."""
    summary = FleetSummary(kind)
    for source, found in _results(_hosts(options.snapshots), work, options.jobs or _cpus()):
        summary.add(source, found.content, found.code)
        if not options.summary:
            json_output.emit_line(kind, {"host": source, **found.content})
            sys.stdout.flush()
    if not summary.hosts:
        raise CouldNot(f"{options.snapshots}: there is no snapshot in it")
    if options.summary and options.json:
        json_output.emit("fleet", summary.content())
    elif options.summary:
        print("\n".join(summary.lines()))
    return summary.code


def _cpus() -> int:
    return min(len(os.sched_getaffinity(0)), MOST_JOBS)


# --- where they are from --------------------------------------------------------------------------


def _hosts(source: str) -> Iterator[FleetHost]:
    """Each snapshot of a folder, a file or standard input. Raises CouldNot."""
    if source == "-":
        yield from _lines(STANDARD_INPUT, sys.stdin.buffer)
    elif os.path.isdir(source):
        yield from _folder(source)
    else:
        yield from _file(source)


def _folder(folder: str) -> Iterator[FleetHost]:
    try:
        names = sorted(one for one in os.listdir(folder) if one.endswith(ENDINGS))
    except OSError as error:
        raise CouldNot(f"{folder}: {error.strerror}") from error
    for name in names:
        file = os.path.join(folder, name)
        if not name.endswith(".jsonl"):
            yield FleetHost(file)
            continue
        try:
            yield from _file(file)
        except CouldNot as error:
            yield FleetHost(file, error=str(error))


def _file(file: str) -> Iterator[FleetHost]:
    try:
        with open(file, "rb") as opened:
            yield from _lines(file, opened)
    except OSError as error:
        raise CouldNot(f"{file}: {error.strerror}") from error


def _lines(name: str, opened: BinaryIO) -> Iterator[FleetHost]:
    """A snapshot a line; of one that is too long the rest is passed over."""
    number = 0
    while line := opened.readline(MOST_BYTES + 1):
        number += 1
        source = f"{name}:{number}"
        if len(line) > MOST_BYTES and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = opened.readline(MOST_BYTES)
            yield FleetHost(source, error=f"{source}: longer than {MOST_BYTES} bytes")
        elif line.strip():
            yield FleetHost(source, line)


# --- what is made of them -------------------------------------------------------------------------


def _results(hosts: Iterator[FleetHost], work: Work, jobs: int) -> Iterator[tuple[str, HostResult]]:
    """In their order, as many at a time as there are processes, and one more."""
    if jobs == 1:
        yield from ((one.source, _done(one, work)) for one in hosts)
        return
    pool = _pool(jobs)
    waiting: deque[tuple[FleetHost, Future[HostResult]]] = deque()
    try:
        for one in hosts:
            try:
                made = pool.submit(_done, one, work)
            except BrokenProcessPool:
                pool = _pool(jobs)
                made = pool.submit(_done, one, work)
            waiting.append((one, made))
            if len(waiting) > jobs:
                yield _taken(*waiting.popleft(), work)
        while waiting:
            yield _taken(*waiting.popleft(), work)
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, get_context("fork"))


def _taken(one: FleetHost, made: Future[HostResult], work: Work) -> tuple[str, HostResult]:
    """A host's result; where a process ended, each that was given to one is tried by itself."""
    try:
        return one.source, made.result()
    except BrokenProcessPool:
        return one.source, _alone(one, work)


def _alone(one: FleetHost, work: Work) -> HostResult:
    with _pool(1) as pool:
        try:
            return pool.submit(_done, one, work).result()
        except BrokenProcessPool:
            why = "its process ended: it ran out of memory, or crashed"
            return _failed(f"{one.source}: {why}")


def _done(one: FleetHost, work: Work) -> HostResult:
    """What a command says of one host; whatever is wrong with it is its own."""
    if one.error:
        return _failed(one.error)
    try:
        return work(_read(one))
    except CouldNot as error:
        return _failed(str(error))
    except Exception as error:
        return _failed(f"{one.source}: a fault of tuned-virt: {type(error).__name__}: {error}")


def _failed(why: str) -> HostResult:
    return HostResult({"error": why}, COULD_NOT)


def _read(one: FleetHost) -> Snapshot:
    if not one.text:
        return snapshot_file.load(one.source)
    text = planning_input.decoded(one.source, one.text, MOST_BYTES + 1)
    return snapshot_file.parse(text, one.source)
