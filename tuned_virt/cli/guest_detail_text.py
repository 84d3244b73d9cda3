# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt guests NAME` for people: one guest in full."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tuned_virt.cli import guest_text, table
from tuned_virt.cli.guest_rows import GuestRow, problem
from tuned_virt.kernel import cpuset

THREADS = ("<thread", "number", "<may run on", "ran last on", "delay %")
NEIGHBOURS = ("<guest", "process", "vCPUs there", "<CPUs of both")
PAGES = ("node", "page KiB", "MiB")
PRESSURE = ("<resource", "<tasks", "10 s %", "60 s %", "300 s %")
THROTTLING = ("<cgroup", "periods", "throttled", "seconds")
DISKS = ("<disk", "<class", "<scheduler", "<wanted", "<why")

Content = Mapping[str, Any]


def lines(row: GuestRow, content: Content, columns: int | None) -> list[str]:
    """All of it in so many columns, None for any number."""
    return [
        f"{row.guest}, process {row.pid}{f', UUID {row.uuid}' if row.uuid else ''}",
        *(line for text in _placement(row) for line in guest_text.folded(text, columns)),
        *(f"    to mend: {command}" for command in row.mend),
        *_part("Threads:", THREADS, map(_thread, content["threads"]), columns, row.threads_error),
        *_part(*_neighbours(content), columns),
        *_memory(row, content, columns),
        *_cgroup(content, columns),
        *_part("Disks:", DISKS, map(_disk, content["disks"]), columns, content["disks_error"]),
    ]


def _placement(row: GuestRow) -> Iterator[str]:
    nodes = f" on node {cpuset.text(row.nodes)}" if row.nodes else ""
    yield f"placement: {row.kind}{nodes}, decided by {row.owner}: {row.why}"
    if row.interval_s is not None:
        yield f"delays: in the last {row.interval_s:g} s"
    yield f"hurts most: {problem(row).value or 'nothing'}"
    yield from (f"    {text}" for text in guest_text.hurting(row, most=None))


def _part(
    title: str,
    titles: Sequence[str],
    rows: Iterable[Sequence[object]],
    columns: int | None,
    error: str = "",
) -> list[str]:
    """A table below its title; without rows, why there are none."""
    found = list(rows)
    if found:
        return ["", title, *table.lines(titles, found, columns), *([error] if error else [])]
    return ["", f"{title} {error or 'none'}"]


def _thread(one: Content) -> Sequence[object]:
    return one["what"], one["thread"], one["cpus"], one["last_cpu"], one["delay_percent"]


def _neighbours(
    content: Content,
) -> tuple[str, Sequence[str], Iterable[Sequence[object]]]:
    rows = ((one["guest"], one["pid"], one["vcpus"], one["cpus"]) for one in content["shares_cpus"])
    return "Guests whose vCPUs may run on the same CPUs:", NEIGHBOURS, rows


def _memory(row: GuestRow, content: Content, columns: int | None) -> Iterator[str]:
    local = "" if row.local is None else f" ({row.local} % on its nodes)"
    rows = ((one.node, one.page_kib, one.mib) for one in row.pages)
    yield from _part(f"Memory{local}:", PAGES, rows, columns, row.memory_error)
    yield f"in swap: {_mib(content['swap_mib'], content['swap_error'])}"
    if content["ksm_error"]:
        yield f"KSM: {content['ksm_error']}"
    else:
        yield (
            f"KSM: merged {_mib(content['merged_mib'])}, mergeable"
            f" {_mib(content['mergeable_mib'])}, profit {_mib(content['profit_mib'])}"
        )


def _mib(size: float | None, error: str = "not told by this kernel") -> str:
    return error if size is None else f"{size} MiB"


def _cgroup(content: Content, columns: int | None) -> Iterator[str]:
    rows = [
        (one["resource"], one["share"], one["avg10"], one["avg60"], one["avg300"])
        for one in content["pressure"]
    ]
    place = f" of {content['cgroup']}" if content["cgroup"] else ""
    yield from _part(f"Pressure{place}:", PRESSURE, rows, columns, content["pressure_error"])
    throttled = (
        (one["cgroup"], one["periods"], one["throttled"], one["throttled_s"])
        for one in content["throttling"]
    )
    error = content["throttling_error"]
    yield from _part("Throttling by a CPU quota:", THROTTLING, throttled, columns, error)


def _disk(one: Content) -> Sequence[object]:
    return one["disk"], one["class"], one["scheduler"] or None, one["wanted"] or None, one["why"]
