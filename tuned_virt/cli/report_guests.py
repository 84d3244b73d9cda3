# SPDX-License-Identifier: GPL-2.0-or-later
"""A report's guests: the table, most delayed first, and where they are drawn. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tuned_virt.cli import guest_text
from tuned_virt.cli.guest_rows import LOCAL, WAITS, GuestProblem, GuestRow, problem
from tuned_virt.cli.host_drawing import DrawnGuest
from tuned_virt.cli.report_table import (
    NONE,
    NUMBER,
    WIDE,
    Column,
    Table,
    TableCell,
    TableRow,
    counted,
)
from tuned_virt.kernel import cpuset

DELAY = (
    "percent of the time measured, 1 s, that the guest's most delayed vCPU waited for a CPU;"
    f" {WAITS:g} % and more hurt"
)

COLUMNS = (
    Column("guest"),
    Column("problem", "what hurts it most"),
    Column("delay %", DELAY, NUMBER, "descending"),
    Column("local %", f"of its memory on its nodes; less than {LOCAL:g} % hurts", NUMBER),
    Column("nodes", "of its placement, else those of its vCPUs"),
    Column("vCPUs", "their number, and the CPUs on which they may run"),
    Column("MiB by node", "memory in use on each NUMA node"),
    Column("placed by", "who decides, and how"),
    Column("why, and what mends it", kind=WIDE),
)

NodeCpus = Mapping[int, frozenset[int]]
"""The CPUs of each NUMA node."""

SEVERE = (GuestProblem.UNGRANTED, GuestProblem.UNPLACED, GuestProblem.DRIFT, GuestProblem.DELAY)


def guests_table(rows: Sequence[GuestRow], nodes: NodeCpus) -> Table:
    """All guests, the one that waits longest first."""
    ordered = sorted(rows, key=_order)
    made = tuple(
        TableRow(tuple(_cells(row, rows, nodes)), problem(row) is not GuestProblem.NONE)
        for row in ordered
    )
    caption = f"{counted(len(rows), 'guest')}, the most delayed first" if rows else "no guests"
    return Table("guests-table", caption, COLUMNS, made, "only guests with a problem")


def _order(row: GuestRow) -> tuple[object, ...]:
    """By delay, those without one last; then by what hurts."""
    delay = -1.0 if row.delay_percent is None else row.delay_percent
    return -delay, list(GuestProblem).index(problem(row)), row.guest, row.pid


def level(row: GuestRow) -> str:
    """How bad it is about a guest."""
    hurt = problem(row)
    if hurt is GuestProblem.NONE:
        return ""
    return "error" if hurt in SEVERE else "warning"


def _cells(row: GuestRow, rows: Sequence[GuestRow], nodes: NodeCpus) -> Iterator[TableCell]:
    hurt = problem(row)
    cpus = cpuset.text(cpus_of(row))
    vcpus = f"{len(row.vcpus)} on {cpus}" if row.vcpus else ""
    by_node = " ".join(f"{node}:{mib}" for node, mib in row.by_node.items())
    yield TableCell(row.guest)
    yield TableCell(hurt.value or "none", list(GuestProblem).index(hurt), level(row))
    yield _percent(row.delay_percent, row.delay_error or row.threads_error)
    yield _percent(row.local, row.memory_error)
    near = nodes_of(row, nodes)
    yield TableCell(cpuset.text(near) or NONE, near[0] if near else "")
    yield TableCell(vcpus or _absent(row.threads_error), len(row.vcpus) or "")
    yield TableCell(by_node or _absent(row.memory_error), sum(row.by_node.values()) or "")
    yield TableCell(f"{row.owner}: {row.kind}" if row.owner != "nobody" else row.owner)
    told = [*guest_text.hurting(row), *guest_text.crowd(row, rows)]
    why = [] if row.why in told else [row.why]
    yield TableCell("", lines=(*told, *why), commands=row.mend)


def _percent(value: float | None, error: str) -> TableCell:
    return TableCell(_absent(error), "") if value is None else TableCell(f"{value:.1f}", value)


def _absent(error: str) -> str:
    return "cannot be read" if error else NONE


def cpus_of(row: GuestRow) -> frozenset[int]:
    """CPUs on which its vCPUs may run."""
    return frozenset[int]().union(*map(cpuset.parse, row.vcpus.values()))


def nodes_of(row: GuestRow, nodes: NodeCpus) -> tuple[int, ...]:
    """Those of its placement, else those of the CPUs on which its vCPUs may run."""
    cpus = cpus_of(row)
    return row.nodes or tuple(sorted(node for node in nodes if nodes[node] & cpus))


def drawn(rows: Sequence[GuestRow], nodes: NodeCpus) -> list[DrawnGuest]:
    """Guests where they are now."""
    return [
        DrawnGuest(
            row.guest,
            row.vcpus,
            nodes_of(row, nodes),
            {node: mib * 1024.0 for node, mib in row.by_node.items()},
            f"{row.kind}, {row.owner}" if row.owner != "nobody" else "placed by nobody",
        )
        for row in rows
    ]
