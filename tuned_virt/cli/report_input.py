# SPDX-License-Identifier: GPL-2.0-or-later
"""What a report is made of: this host now, or a snapshot. Each part is there, or says why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from tuned_virt.cli import audit, audit_input, collection, snapshot_file
from tuned_virt.cli.collected import AuditSources, Collected, Content, HostState, tried
from tuned_virt.cli.guest_rows import GuestRow
from tuned_virt.cli.planning_input import DescribedGuest, PlanningInput
from tuned_virt.frozen_dataclasses import dataclass, fields
from tuned_virt.kernel import cpuset, numa_maps
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.guest import Guest, printable
from tuned_virt.model.host_facts import Fact
from tuned_virt.placement import Placement, PlacementKind

T = TypeVar("T")

OLD = "this snapshot does not contain it; write the report on the host"

NOT_RUNNING = "it did not run, or the snapshot was written from files"


@dataclass(frozen=True)
class ReportInput:
    """A host, and what commands say of it, as their `--json` has it.

    host      its name, or the snapshot's
    when      the moment, ISO 8601; source: where all this comes from, in words
    planning  the host, its guests' documents, where those are
    rows      running guests
    switched  when TuneD last wrote down its profile
    """

    host: str
    when: str
    source: str
    planning: Fact[PlanningInput]
    rows: Fact[list[GuestRow]]
    audit: Fact[Content]
    status: Fact[Content] = Fact(None, OLD)
    hugepages: Fact[Content] = Fact(None, OLD)
    ksm: Fact[Content] = Fact(None, OLD)
    disks: Fact[Content] = Fact(None, OLD)
    changes: Fact[Content] = Fact(None, OLD)
    settings: Fact[Mapping[str, str]] = Fact(None, OLD)
    switched: Fact[str] = Fact(None, OLD)


def here(fs: KernelFS) -> ReportInput:
    """This host. What cannot be read does not stop the rest."""
    return _of(collection.here(fs), "this host")


def of_snapshot(file: str) -> ReportInput:
    """What a snapshot has. Raises CouldNot."""
    known = snapshot_file.load(file)
    redacted = ", redacted" if known.redacted else ""
    return _of(known.collected(), f"the snapshot {known.name}{redacted}")


def _of(found: Collected, source: str) -> ReportInput:
    audited = _audited(found.audit)
    if found.state is None:
        rows = _known(found.planning, lambda known: list(_described(known)))
        return ReportInput(found.host, found.when, source, found.planning, rows, audited)
    state = {one.name: getattr(found.state, one.name) for one in fields(HostState)}
    return ReportInput(
        found.host, found.when, source, planning=found.planning, audit=audited, **state
    )


def _audited(found: Fact[AuditSources]) -> Fact[Content]:
    return _known(found, lambda known: audit.content(audit_input.audited(known)))


def _known(found: Fact[Any], made: Callable[[Any], T]) -> Fact[T]:
    """What is made of something known, or why neither is."""
    return Fact(None, found.why) if found.value is None else tried(lambda: made(found.value))


# --- a snapshot without measurements ----------------------------------------------------------


def _described(known: PlanningInput) -> Iterator[GuestRow]:
    nodes = {node.id: node.cpus for node in known.host.nodes}
    for guest, one in zip(known.guests, known.described):
        yield _row(guest, one, nodes)


def _owner(held: Placement | None) -> str:
    if held is None:
        return "nobody"
    return "its owner" if held.kind is PlacementKind.OWNER else "tuned-virt"


def _why(one: DescribedGuest) -> str:
    if one.held is not None:
        return printable(one.held.why)
    return NOT_RUNNING if one.now is None else "not managed by vm_pinning"


def _row(guest: Guest, one: DescribedGuest, nodes: Mapping[int, frozenset[int]]) -> GuestRow:
    """A guest as the snapshot was written; its delay was not measured."""
    held = one.held
    vcpus = dict(one.now.vcpus) if one.now else {}
    cpus = frozenset[int]().union(*map(cpuset.parse, vcpus.values()))
    near = frozenset(held.nodes if held else [node for node in nodes if nodes[node] & cpus])
    share = numa_maps.share(one.resident, near) if near else None
    return GuestRow(
        guest=printable(guest.name),
        uuid=guest.uuid,
        pid=0,
        kind=held.kind.value if held else PlacementKind.UNPLACED.value,
        nodes=tuple(sorted(near)),
        vcpus=vcpus,
        owner=_owner(held),
        why=_why(one),
        local=None if share is None else round(100 * share, 1),
        by_node={node: kib >> 10 for node, kib in one.resident.items()},
        drift=(),
        delay_ms=None,
        ungranted=held.ungranted if held else "",
    )
