# SPDX-License-Identifier: GPL-2.0-or-later
"""`audit --sarif`: the findings as SARIF 2.1.0, which CI systems show beside the files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from tuned_virt import __version__
from tuned_virt.audit.check import AuditFinding, AuditResult
from tuned_virt.audit.rule import GUIDE, AuditRule, Severity
from tuned_virt.audit.scene import AuditedGuest
from tuned_virt.audit.suppressions import METADATA
from tuned_virt.cli.audit_input import AuditInput

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def emit(gathered: AuditInput, result: AuditResult, rules: Sequence[AuditRule]) -> None:
    """Print it."""
    import json

    print(json.dumps(document(gathered, result, rules), indent=2))


def document(
    gathered: AuditInput, result: AuditResult, rules: Sequence[AuditRule]
) -> dict[str, Any]:
    """One run with the rules that were asked."""
    places = {rule.id: number for number, rule in enumerate(rules)}
    driver = {
        "name": "tuned-virt audit",
        "version": __version__,
        "rules": list(map(_rule, rules)),
    }
    run = {
        "tool": {"driver": driver},
        "invocations": [_invocation(gathered, result)],
        "results": [_result(one, places) for one in result.findings],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(rule: AuditRule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.checks},
        "fullDescription": {"text": rule.why},
        "help": {"text": rule.advice},
        "helpUri": rule.page or GUIDE,
        "defaultConfiguration": {"level": LEVELS[rule.severity]},
        "properties": {"guide": rule.guide, "topic": rule.topic},
    }


def _result(one: AuditFinding, places: dict[str, int]) -> dict[str, Any]:
    command = f" Command: {one.command}" if one.command else ""
    found: dict[str, Any] = {
        "ruleId": one.rule.id,
        "ruleIndex": places[one.rule.id],
        "level": LEVELS[one.severity],
        "message": {"text": f"{one.what}. Advised: {one.advice}.{command}"},
        "locations": [_location(one.guest)],
    }
    if one.suppressed:
        own = one.suppressed.where == METADATA
        kind = "inSource" if own else "external"
        found["suppressions"] = [{"kind": kind, "justification": one.suppressed.reason}]
    return found


def _location(guest: AuditedGuest | None) -> dict[str, Any]:
    name = "host" if guest is None else guest.guest.name
    found: dict[str, Any] = {"logicalLocations": [{"name": name, "kind": "resource"}]}
    if guest is not None and guest.file:
        found["physicalLocation"] = {"artifactLocation": {"uri": _uri(guest.file)}}
    return found


def _uri(file: str) -> str:
    """Relative paths stay so: they are looked for in the checkout."""
    return f"file://{quote(file)}" if os.path.isabs(file) else quote(file)


def _invocation(gathered: AuditInput, result: AuditResult) -> dict[str, Any]:
    bad = [
        {"level": "error", "message": {"text": f"{name}: {why}"}}
        for name, why in gathered.unreadable
    ]
    bad += [
        {"level": "note", "message": {"text": f"{name}: {why}"}} for name, why in gathered.others
    ]
    bad += [
        {
            "level": "note",
            "message": {"text": f"not checked: {one.why}"},
            "associatedRule": {"id": one.rule.id},
        }
        for one in result.not_checked
    ]
    return {
        "executionSuccessful": not gathered.unreadable and bool(result.checked),
        "toolExecutionNotifications": bad,
    }
