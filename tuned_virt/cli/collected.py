# SPDX-License-Identifier: GPL-2.0-or-later
"""A host as it is collected for a report or a snapshot. Each part is there, or says why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tuned_virt.cli.guest_rows import GuestRow
from tuned_virt.cli.planning_input import PlanningInput
from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel.errors import PlainError
from tuned_virt.model.host_facts import Fact, HostFacts
from tuned_virt.model.topology import Host

T = TypeVar("T")
Content = Mapping[str, Any]


@dataclass(frozen=True)
class GuestDocument:
    """A guest's XML, and where it comes from: a file, or this host's libvirt."""

    name: str
    xml: str
    file: str = ""
    running: bool = True
    placed: bool = False
    profile: Fact[str] = field(default_factory=Fact)


@dataclass(frozen=True)
class AuditSources:
    """A host, facts of it, and guests' documents.

    documents      each guest's; without_guests says why there are none where libvirt does not tell
    unreadable     guest or this host → why it could not be read
    """

    host: Host | None
    facts: HostFacts = field(default_factory=HostFacts)
    documents: tuple[GuestDocument, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    without_guests: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostRole:
    """A machine's part.

    in_guest      it is a guest itself
    manager       what places the guests of this host, "" for nothing of the kind
    swap_in_ram   the swap that is used first is in memory: zram, zswap
    """

    in_guest: Fact[bool]
    manager: str
    swap_in_ram: Fact[bool]


@dataclass(frozen=True)
class HostState:
    """What commands say of a host, as their `--json` has it.

    rows      running guests
    changes   the journal's end
    settings  the text of each settings file, by path
    switched  when TuneD last wrote down its profile
    """

    rows: Fact[list[GuestRow]]
    status: Fact[Content]
    hugepages: Fact[Content]
    ksm: Fact[Content]
    disks: Fact[Content]
    changes: Fact[Content]
    settings: Fact[Mapping[str, str]]
    switched: Fact[str]


@dataclass(frozen=True)
class Collected:
    """A host, with its guests' documents as planning and the audit take them.

    host         its name, "" where only files are given
    when         the moment, ISO 8601
    role, state  None where only files are given
    """

    host: str
    when: str
    planning: Fact[PlanningInput]
    audit: Fact[AuditSources]
    role: HostRole | None = None
    state: HostState | None = None


def tried(read: Callable[[], T]) -> Fact[T]:
    """What is read, or why it cannot be."""
    try:
        return Fact(read(), "")
    except (PlainError, OSError) as error:
        return Fact(None, str(error))
    except ModuleNotFoundError as error:
        return Fact(None, f"the Python module {error.name} is not installed")
