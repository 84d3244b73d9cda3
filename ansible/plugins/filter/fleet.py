# SPDX-License-Identifier: GPL-2.0-or-later
"""What a fleet's report says of each host, the worst first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: fleet
short_description: The hosts of a report, the worst first
version_added: 0.2.0
description:
  - Hosts that did not answer come first, then those that differ from their profile, then the others
    by the number of errors and warnings.
options:
  _input:
    description: Variables of hosts, with what the modules status and audit have returned.
    type: list
    elements: dict
    required: true
author:
  - tuned-virt-plus developers
"""

EXAMPLES = r"""
rows: "{{ groups['all'] | map('extract', hostvars) | tuned_virt.plus.fleet }}"
"""

RETURN = r"""
_value:
  description: Of each host its name, state, profile, problems and findings.
  type: list
  elements: dict
"""

SEVERITIES = ("error", "warning", "info")
STATES = ("not known", "differs", "findings", "partly checked", "fine")
UNKNOWN, DIFFERS, FINDINGS, PARTLY, FINE = STATES

Content = Mapping[str, Any]


def row(host: Content) -> dict[str, Any]:
    """One host: what is known of it, and what is wrong."""
    answers = [host.get(f"tuned_virt_{name}") or {} for name in ("status", "audited")]
    status, audit = (answer.get("content") or {} for answer in answers)
    shown = [one for one in audit.get("findings", ()) if not one["suppressed"]]
    counts = {name: sum(one["severity"] == name for one in shown) for name in SEVERITIES}
    silent = [answer.get("msg") or "no answer" for answer in answers if not answer.get("content")]
    unchecked = list(dict.fromkeys(one["why"] for one in audit.get("not_checked", ())))
    return {
        "host": host["inventory_hostname"],
        "profile": status.get("profile") or "none",
        "state": UNKNOWN if silent else state(status, counts, bool(unchecked)),
        "problems": [*dict.fromkeys(map(str, silent)), *problems(status)],
        "counts": counts,
        "findings": sorted(shown, key=lambda one: SEVERITIES.index(one["severity"])),
        "unchecked": unchecked,
    }


def problems(status: Content) -> list[str]:
    """What a status says is not as it should be."""
    if not status:
        return []
    found = [*status["differing"]]
    found += [f"{one['guest']}: {one['why']}" for one in status["ungranted"]]
    found += [status["unverified"]] if status["unverified"] else []
    return found if status["profile"] else ["no profile is active", *found]


def state(status: Content, counts: Mapping[str, int], partly: bool) -> str:
    """The worst that is known."""
    if status["verified"] is None:
        return UNKNOWN
    if not status["verified"]:
        return DIFFERS
    if counts["error"] or counts["warning"]:
        return FINDINGS
    return PARTLY if partly else FINE


def fleet(hosts: Iterable[Content]) -> list[dict[str, Any]]:
    """See DOCUMENTATION."""

    def worst(one: Content) -> tuple[Any, ...]:
        counts = (-one["counts"][name] for name in SEVERITIES)
        return STATES.index(one["state"]), *counts, one["host"]

    return sorted(map(row, hosts), key=worst)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> Mapping[str, Any]:
        """The filters by name."""
        return {"fleet": fleet}
