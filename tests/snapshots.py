# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots to test, of what planning was given."""

from __future__ import annotations

import json
from typing import Any

from tuned_virt.cli import snapshot_file
from tuned_virt.cli.collected import AuditSources, Collected, GuestDocument
from tuned_virt.cli.planning_input import PlanningInput
from tuned_virt.model.host_facts import Fact


def collected(known: PlanningInput) -> Collected:
    """As if only files had been given."""
    documents = tuple(
        GuestDocument(guest.name, one.xml) for guest, one in zip(known.guests, known.described)
    )
    audit = AuditSources(known.host, documents=documents)
    return Collected("", "2026-11-28T03:00:00.000+01:00", Fact(known, ""), Fact(audit, ""))


def content(known: PlanningInput) -> dict[str, Any]:
    """A snapshot of the newest format, as JSON has it."""
    made: dict[str, Any] = json.loads(json.dumps(snapshot_file.content(collected(known))))
    return made


def old_content(known: PlanningInput) -> dict[str, Any]:
    """The same in format 2."""
    made = {name: content(known)[name] for name in ("host", "guests", "notes")}
    return {"format": 2, **made}
