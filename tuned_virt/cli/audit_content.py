# SPDX-License-Identifier: GPL-2.0-or-later
"""What `audit --json` prints: findings, what was not checked and why, and the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuned_virt.audit.check import AuditFinding, AuditResult, NotChecked
from tuned_virt.audit.rule import AuditRule, ByProfile, Severity
from tuned_virt.audit.scene import AuditedGuest
from tuned_virt.cli.audit_input import AuditInput


def content(gathered: AuditInput, result: AuditResult, notes: Sequence[str]) -> dict[str, Any]:
    """An audit as JSON has it; worst findings first."""
    return {
        "findings": list(map(_finding, result.findings)),
        "counts": {level.value: count(result, level) for level in Severity},
        "guests": [
            {**_subject(one), "file": one.file or None, "running": one.running}
            for one in gathered.scene.guests
        ],
        "not_checked": [
            *(_not_checked(one) for one in result.not_checked),
            *(
                {"rule": None, "guest": name, "uuid": None, "why": why}
                for name, why in (*gathered.others, *gathered.unreadable)
            ),
        ],
        "notes": list(notes),
    }


def count(result: AuditResult, level: Severity) -> int:
    """How many findings of a severity are not suppressed."""
    return sum(one.severity is level for one in result.counted)


def _subject(guest: AuditedGuest | None) -> dict[str, Any]:
    if guest is None:
        return {"guest": None, "uuid": None}
    return {"guest": guest.guest.name, "uuid": guest.guest.uuid or None}


def _finding(one: AuditFinding) -> dict[str, Any]:
    accepted = one.suppressed
    return {
        "rule": one.rule.id,
        "severity": one.severity.value,
        **_subject(one.guest),
        "found": one.what,
        "advice": one.advice,
        "why": one.rule.why,
        "source": _source(one.rule),
        "command": one.command or None,
        "profile": _profile(one.rule.profile),
        "suppressed": accepted and {"where": accepted.where, "reason": accepted.reason},
    }


def _source(rule: AuditRule) -> dict[str, Any]:
    return {"guide": rule.guide or None, "page": rule.page or None}


def _profile(profile: ByProfile | None) -> dict[str, Any] | None:
    if profile is None:
        return None
    return {
        "profile": profile.profile,
        "setting": profile.setting,
        "by_itself": profile.by_itself,
    }


def _not_checked(one: NotChecked) -> dict[str, Any]:
    return {"rule": one.rule.id, **_subject(one.guest), "why": one.why}


def rule_content(rule: AuditRule) -> dict[str, Any]:
    """A rule as JSON has it."""
    return {
        "rule": rule.id,
        "topic": rule.topic,
        "severity": rule.severity.value,
        "of": "guest" if rule.of_guest else "host",
        "checks": rule.checks,
        "advice": rule.advice,
        "why": rule.why,
        "source": _source(rule),
        "command": rule.template or None,
        "profile": _profile(rule.profile),
    }
