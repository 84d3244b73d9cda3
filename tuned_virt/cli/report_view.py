# SPDX-License-Identifier: GPL-2.0-or-later
"""What a report shows, section by section, from what commands say of the host. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tuned_virt.cli import (
    host_drawing,
    hugepages,
    ksm_report,
    report_findings,
    report_guests,
    status,
)
from tuned_virt.cli.collected import Content
from tuned_virt.cli.guest_rows import WAITS, GuestProblem, GuestRow, problem
from tuned_virt.cli.report_findings import RuleFindings
from tuned_virt.cli.report_input import ReportInput
from tuned_virt.cli.report_settings import settings_tables
from tuned_virt.cli.report_table import (
    NONE,
    NUMBER,
    WIDE,
    Column,
    Table,
    TableCell,
    counted,
    table,
    when,
)
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.model.host_facts import Fact

WORST = 8
"""Guests and rules named in the summary; their sections have all."""

LONGEST = 40
"""Characters of a name in the summary."""


@dataclass(frozen=True)
class Tile:
    """A figure of the summary: what it is of, and the section that has more."""

    label: str
    value: str
    section: str
    level: str = ""
    more: str = ""


@dataclass(frozen=True)
class Attention:
    """Something to look at now."""

    level: str
    text: str
    section: str


def view(given: ReportInput) -> dict[str, Any]:
    """All that the template shows."""
    rows = given.rows.value or []
    known = given.planning.value
    rules = report_findings.by_rule(given.audit.value) if given.audit.value else []
    nodes = {one.id: one.cpus for one in known.host.nodes} if known else {}
    return {
        "host": given.host,
        "when": given.when,
        "source": given.source,
        "tiles": list(_tiles(given, rows, rules)),
        "attention": list(_attention(given, rows, rules)),
        "guests": _part(given.rows, lambda found: report_guests.guests_table(found, nodes)),
        "map": _part(
            given.planning,
            lambda known: host_drawing.draw(known.host, report_guests.drawn(rows, nodes)),
        ),
        "findings": _part(given.audit, lambda content: _findings(content, rules)),
        "pools": _part(given.hugepages, _pools),
        "ksm": _part(given.ksm, lambda content: _ksm(content, given.changes.value)),
        "disks": _part(given.disks, _disks),
        "settings": _part(given.settings, lambda files: settings_tables(files, given.status.value)),
        "profile": _part(given.status, _profile),
        "switched": given.switched,
        "changes": _part(given.changes, _changes),
        "columns": report_guests.COLUMNS,
        "remarks": list(known.notes) if known else [],
    }


def _part(given: Fact[Any], show: Any) -> Fact[Any]:
    """A section, or why there is none."""
    return given if given.value is None else Fact(show(given.value), "")


# --- the summary ----------------------------------------------------------------------------------


def _tiles(
    given: ReportInput, rows: Sequence[GuestRow], rules: Sequence[RuleFindings]
) -> Iterator[Tile]:
    known = given.status.value
    if known is not None:
        level, word = _verified(known)
        yield Tile("profile", known["profile"] or "none", "settings", level, word)
    if given.rows.value is not None:
        hurt = sum(problem(row) is not GuestProblem.NONE for row in rows)
        more = f"{hurt} with a problem" if hurt else "none has a problem" if rows else ""
        yield Tile(
            "guests", str(len(rows)), "guests", "error" if hurt else "good" if rows else "", more
        )
        delays = [row.delay_percent for row in rows if row.delay_percent is not None]
        if delays:
            worst = max(delays)
            level = "error" if worst >= WAITS else "good"
            yield Tile(
                "longest delay",
                f"{worst:.1f} %",
                "guests",
                level,
                f"of the time, of a vCPU; {WAITS:g} % and more hurt",
            )
    if given.planning.value is not None:
        host = given.planning.value.host
        vcpus = sum(len(row.vcpus) for row in rows)
        more = f"{counted(len(host.nodes), 'NUMA node')}, {counted(vcpus, 'vCPU')}"
        yield Tile("CPUs", str(len(host.cpus)), "map", "", more)
    if given.audit.value is not None:
        yield _findings_tile(given.audit.value)
    if given.ksm.value is not None:
        yield Tile("saved by KSM", f"{given.ksm.value['saved_mib']:g} MiB", "ksm")
    if given.hugepages.value is not None:
        pools = given.hugepages.value["pools"]
        free = sum(pool["free"] * pool["mib"] // max(pool["total"], 1) for pool in pools)
        total = sum(pool["mib"] for pool in pools)
        yield Tile("huge pages", f"{total} MiB", "pools", "", f"{free} MiB free")


def _verified(known: Content) -> tuple[str, str]:
    """How bad it is about the profile, and in words."""
    if known["tuned"] != "running":
        return "error", "TuneD does not run"
    if not known["profile"]:
        return "warning", "no profile is active"
    if known["verified"] is None:
        return "warning", "not verified"
    return ("good", "verified") if known["verified"] else ("error", "differs")


def _findings_tile(content: Content) -> Tile:
    """Good only where all was checked."""
    counts = content["counts"]
    best = "" if content["not_checked"] else "good"
    level = next((one for one in ("error", "warning") if counts[one]), best)
    told = ", ".join(f"{number} {name}" for name, number in counts.items())
    told += "; not all was checked" if content["not_checked"] else ""
    return Tile("findings", str(sum(counts.values())), "findings", level, told)


def _attention(
    given: ReportInput, rows: Sequence[GuestRow], rules: Sequence[RuleFindings]
) -> Iterator[Attention]:
    """Worst first: the profile, what is pending, guests, errors of the audit."""
    known = given.status.value
    if known is not None:
        level, _ = _verified(known)
        if level != "good":
            yield Attention(level, status.profile_line(known), "settings")
        for setting, why in known["pending"].items():
            yield Attention("warning", f"pending: {setting}: {why}", "settings")
        for remark in known["originals"]:
            yield Attention("error", remark, "settings")
    yield from _guests_attention(rows)
    for one in [rule for rule in rules if rule.severity == "error"][:WORST]:
        whom = counted(one.guests, "guest") if one.guests else "host"
        yield Attention("error", f"{one.rule}: {whom}: {one.same[0].found}", "findings")


def _guests_attention(rows: Sequence[GuestRow]) -> Iterator[Attention]:
    """By problem, with the guests that have it."""
    kinds = Counter(problem(row) for row in rows)
    for kind in GuestProblem:
        if kind is GuestProblem.NONE or not kinds[kind]:
            continue
        some = [row for row in rows if problem(row) is kind]
        some.sort(key=lambda row: -(row.delay_percent or 0.0))
        names = ", ".join(map(_named, some[:WORST]))
        more = f" and {len(some) - WORST} more" if len(some) > WORST else ""
        yield Attention(report_guests.level(some[0]), f"{kind.value}: {names}{more}", "guests")


def _named(row: GuestRow) -> str:
    name = row.guest if len(row.guest) <= LONGEST else f"{row.guest[: LONGEST - 1]}…"
    delay = row.delay_percent or 0.0
    return f"{name} ({delay:.1f} % delay)" if delay >= WAITS else name


# --- findings -------------------------------------------------------------------------------------


def _findings(content: Content, rules: Sequence[RuleFindings]) -> dict[str, Any]:
    unknown: dict[str, set[str]] = {}
    for one in content["not_checked"]:
        unknown.setdefault(one["why"], set()).add(one["rule"] or one["guest"] or "host")
    return {
        "rules": rules,
        "checked": len(content["guests"]),
        "suppressed": sum(bool(one["suppressed"]) for one in content["findings"]),
        "not_checked": [(why, sorted(what)) for why, what in unknown.items()],
        "notes": content["notes"],
    }


# --- pools, KSM, disks ----------------------------------------------------------------------------

POOLS = (
    Column("node", kind=NUMBER),
    Column("size"),
    Column("total", "pages of the pool", NUMBER),
    Column("persistent", "without surplus pages, which go when they are given back", NUMBER),
    Column("free", "pages that nobody has", NUMBER),
    Column("surplus", "pages beyond the pool's size", NUMBER),
    Column("MiB", "of all its pages", NUMBER),
)

PAGES = (
    Column("guest or process"),
    Column("PID", kind=NUMBER),
    Column("node", kind=NUMBER),
    Column("size"),
    Column("pages", kind=NUMBER),
    Column("MiB", kind=NUMBER),
)


def _pools(content: Content) -> dict[str, Any]:
    rows = [
        (pool["node"], TableCell(pool["size"], pool["size_kib"]), *(pool[name] for name in COUNTED))
        for pool in content["pools"]
    ]
    others = [{**one, "guest": one["process"]} for one in content["others"]]
    uses = [row for one in (*content["guests"], *others) for row in hugepages.use_rows(one)]
    return {
        "pools": table("pools-table", f"{counted(len(rows), 'pool')} of huge pages", POOLS, rows),
        "uses": table("pages-table", "who uses them", PAGES, uses),
        "transparent": hugepages.transparent_line(content["transparent"]),
        "remark": content["guests_remark"],
    }


COUNTED = ("total", "persistent", "free", "surplus", "mib")

DECISIONS = (Column("when"), Column("phase or plugin"), Column("why", kind=WIDE), Column("changed"))

VARIABLES = (Column("variable"), Column("value", kind=NUMBER), Column("meaning", kind=WIDE))


def _ksm(content: Content, changes: Content | None) -> dict[str, Any]:
    decisions = content["loop"]["decisions"] if content["loop"] else []
    history: list[tuple[Any, ...]] = [
        (
            when(one["when"]),
            one["phase"],
            one["why"],
            [f"{k}={v}" for k, v in one["changes"].items()],
        )
        for one in decisions
    ]
    history += [
        (when(one["when"]), "profile", one["why"], _change(one))
        for one in (changes["changes"] if changes else [])
        if one["plugin"] == "ksm"
    ]
    history.sort(key=lambda row: str(row[0].sort), reverse=True)
    values = [(one["name"], one["value"], one["meaning"]) for one in content["variables"]]
    return {
        "summary": list(ksm_report.summary(content)),
        "history": table("ksm-table", "what KSM was told, newest first", DECISIONS, history),
        "variables": table("ksm-variables", "its variables in the kernel", VARIABLES, values),
    }


def _change(one: Mapping[str, Any]) -> str:
    return f"{one['setting']}: {one['before']} → {one['after']}"


DISKS = (
    Column("disk"),
    Column("class", "how it is attached"),
    Column("backs", "guests that are on it"),
    Column("scheduler", "I/O scheduler now"),
    Column("wanted", "scheduler for its class"),
    Column("why", kind=WIDE),
)


def _disk_order(one: Content) -> tuple[bool, bool]:
    """Those that differ first, then those that guests are on; else as the command has them."""
    return one["wanted"] in ("", one["scheduler"]), not one["backs"]


def _disks(content: Content) -> dict[str, Any]:
    rows = []
    for one in sorted(content["disks"], key=_disk_order):
        if one["offered"] or one["backs"]:
            differs = one["wanted"] and one["wanted"] != one["scheduler"]
            told = f"{one['wanted']} (differs)" if differs else one["wanted"]
            wanted = TableCell(told or NONE, one["wanted"], "warning" if differs else "")
            why = one["remark"] or one["why"]
            rows.append((one["disk"], one["class"], one["backs"], one["scheduler"], wanted, why))
    caption = f"{counted(len(rows), 'disk')} with a choice of schedulers, or with guests on them"
    return {
        "table": table("disks-table", caption, DISKS, rows),
        "active": content["active"],
        "notes": content["notes"],
    }


# --- settings -------------------------------------------------------------------------------------

CHANGES = (
    Column("when"),
    Column("plugin"),
    Column("setting"),
    Column("change"),
    Column("why", kind=WIDE),
)


def _profile(content: Content) -> dict[str, Any]:
    returns = content["returns_to"]
    return {
        "line": status.profile_line(content),
        "level": _verified(content)[0],
        "returns": status.return_line(returns) if returns else "",
        "differing": content["differing"],
        "notes": content["notes"],
        "pending": list(content["pending"].items()),
    }


def _changes(content: Content) -> Table:
    rows = [
        (
            when(one["when"]),
            one["plugin"],
            one["setting"],
            f"{one['before']} → {one['after']}",
            one["why"],
        )
        for one in reversed(content["changes"])
    ]
    return table("changes-table", f"the last {len(rows)} changes, newest first", CHANGES, rows)
