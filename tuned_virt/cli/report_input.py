# SPDX-License-Identifier: GPL-2.0-or-later
"""What a report is made of: this host now, or a snapshot. Each part is there, or says why not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tuned_virt.cli import (
    audit,
    audit_input,
    disks,
    guests,
    hugepages,
    json_output,
    ksm_report,
    log,
    planning_input,
    settings_file,
    snapshot,
    status,
)
from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.guest_rows import GuestRow
from tuned_virt.cli.planning_input import DescribedGuest, PlanningInput
from tuned_virt.core import active_profile, settings
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel import cpuset, numa_maps
from tuned_virt.kernel.errors import PlainError
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.guest import Guest, printable
from tuned_virt.model.host_facts import Fact
from tuned_virt.placement import Placement, PlacementKind

T = TypeVar("T")
Content = Mapping[str, Any]

CHANGES = 100
"""Changes shown, the newest ones."""

OLD = "a snapshot does not contain it; write the report on the host"

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
    return ReportInput(
        host=os.uname().nodename,
        when=json_output.moment(time.time()),
        source="this host",
        planning=_tried(lambda: planning_input.here(fs)),
        rows=_tried(lambda: _rows(fs)),
        audit=_tried(lambda: audit.content(audit_input.here(fs))),
        status=_tried(lambda: status.gather(fs)),
        hugepages=_tried(lambda: hugepages.gather(fs)),
        ksm=_ksm(fs),
        disks=_tried(lambda: disks.look(fs).content()),
        changes=_tried(lambda: log.gather(CHANGES)),
        settings=_tried(_settings),
        switched=_tried(_switched),
    )


def _tried(read: Callable[[], T]) -> Fact[T]:
    try:
        return Fact(read(), "")
    except (PlainError, OSError) as error:
        return Fact(None, str(error))
    except ModuleNotFoundError as error:
        return Fact(None, f"the Python module {error.name} is not installed")


def _rows(fs: KernelFS) -> list[GuestRow]:
    look = guests.Look(fs, None)
    look.take(guests.SAMPLE)
    return look.rows


def _ksm(fs: KernelFS) -> Fact[Content]:
    content = ksm_report.gather(fs)
    return Fact(None, ksm_report.ABSENT) if content is None else Fact(content, "")


def _settings() -> dict[str, str]:
    """The text of each settings file, by path, an image's before the machine's."""
    files = [one for file in settings_file.machines_files() for one in settings.layers(file)]
    return {file: planning_input.text_of(Path(file)) for file in files}


def _switched() -> str:
    """When TuneD last wrote down its profile. Raises CouldNot where none is written."""
    if not planning_input.text_of(Path(active_profile.NAMES)).strip():
        raise CouldNot("no profile is written down")
    return json_output.moment(os.stat(active_profile.NAMES).st_mtime)


# --- a snapshot -----------------------------------------------------------------------------------


def of_snapshot(file: str) -> ReportInput:
    """What a snapshot has. Raises CouldNot."""
    known = snapshot.load(Path(file))
    return ReportInput(
        host=os.path.basename(file),
        when=json_output.moment(os.stat(file).st_mtime),
        source=f"the snapshot {file}",
        planning=Fact(known, ""),
        rows=Fact(list(_described(known)), ""),
        audit=_tried(lambda: audit.content(audit_input.gather(None, [], file))),
    )


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
