# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt audit: check this host and its guests, or their files, by the guide's rules."""

from __future__ import annotations

import argparse
import difflib
import fnmatch
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuned_virt.audit.check import AuditResult, check
from tuned_virt.audit.rule import AuditRule, Severity, all_rules
from tuned_virt.audit.suppressions import (
    Suppression,
    SuppressionError,
    ignored,
    parse,
)
from tuned_virt.cli import (
    audit_content,
    audit_sarif,
    audit_text,
    fleet,
    json_output,
    planning_input,
)
from tuned_virt.cli.audit_input import AuditInput, audited, gather
from tuned_virt.cli.common import COULD_NOT, FINE, TO_REPORT, CouldNot
from tuned_virt.cli.fleet import HostResult
from tuned_virt.cli.planning_input import text_of
from tuned_virt.cli.snapshot_file import Snapshot
from tuned_virt.frozen_dataclasses import dataclass

SUPPRESSIONS = "/etc/tuned/tuned-virt-audit.conf"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    planning_input.add_sources(parser)
    parser.add_argument(
        "--snapshot", metavar="FILE", help="a host with its guests, by tuned-virt snapshot"
    )
    fleet.add_options(parser, "audit")
    parser.add_argument(
        "--rule",
        metavar="RULE",
        nargs="+",
        action="extend",
        default=[],
        help="only these: ids, topics or patterns of ids",
    )
    parser.add_argument(
        "--skip",
        metavar="RULE",
        nargs="+",
        action="extend",
        default=[],
        help="all but these",
    )
    parser.add_argument(
        "--fail-on",
        choices=[one.value for one in Severity],
        default=Severity.WARNING.value,
        help="exit with 1 for a finding of this severity or worse (default: warning)",
    )
    parser.add_argument(
        "--suppressions",
        metavar="FILE",
        help=f"findings that are accepted, each with the reason (default: {SUPPRESSIONS})",
    )
    output = parser.add_mutually_exclusive_group()
    json_output.add_option(output)
    output.add_argument("--sarif", action="store_true", help="print SARIF 2.1.0")
    parser.add_argument(
        "--list", action="store_true", help="list the rules; with --json all of them"
    )
    parser.add_argument("--explain", metavar="RULE", help="explain one rule")


def run(options: argparse.Namespace) -> int:
    """Gather, check and print."""
    known = all_rules()
    chosen = choose(known, options.rule, options.skip)
    if options.list or options.explain:
        return _describe(options, known, chosen)
    fleet.refuse_without(options)
    accepted = _suppressions(options.suppressions, known)
    if options.snapshots:
        fleet.refuse_beside(options, "host", "guest", "snapshot", "sarif")
        asked = AuditRequest(tuple(one.id for one in chosen), accepted, Severity(options.fail_on))
        return fleet.run("audit", options, functools.partial(_of_host, asked=asked))
    gathered = gather(options.host, options.guest, options.snapshot)
    result = check(gathered.scene, chosen, accepted)
    notes = _notes(gathered, known)
    if options.json:
        json_output.emit("audit", audit_content.content(gathered, result, notes))
    elif options.sarif:
        audit_sarif.emit(gathered, result, chosen)
    else:
        audit_text.show(gathered, result, notes)
    return _code(gathered, result, Severity(options.fail_on))


@dataclass(frozen=True)
class AuditRequest:
    """What each host of a fleet is checked by: ids of rules, accepted findings, what fails."""

    rules: tuple[str, ...]
    accepted: list[Suppression]
    fail_on: Severity


def _of_host(known: Snapshot, asked: AuditRequest) -> HostResult:
    """A host's findings, for a fleet's."""
    rules = all_rules()
    gathered = audited(known.audit())
    result = check(gathered.scene, [rules[name] for name in asked.rules], asked.accepted)
    found = audit_content.content(gathered, result, _notes(gathered, rules))
    content = {"host_name": known.host_name, **found}
    return HostResult(content, _code(gathered, result, asked.fail_on))


def content(gathered: AuditInput) -> dict[str, Any]:
    """What every rule finds, as JSON has it, with this host's suppressions. Raises CouldNot."""
    known = all_rules()
    result = check(gathered.scene, list(known.values()), _suppressions(None, known))
    return audit_content.content(gathered, result, _notes(gathered, known))


def _notes(gathered: AuditInput, known: Mapping[str, AuditRule]) -> tuple[str, ...]:
    own = [text for guest in gathered.scene.guests for text in ignored(guest, list(known))]
    return (*gathered.notes, *own)


def _code(gathered: AuditInput, result: AuditResult, level: Severity) -> int:
    """2 where a document could not be read, none is a KVM guest's, or nothing could be answered."""
    foreign = gathered.others and not gathered.scene.guests
    if gathered.unreadable or foreign or not result.checked:
        return COULD_NOT
    return TO_REPORT if result.reaches(level) else FINE


def choose(
    known: Mapping[str, AuditRule], wanted: Sequence[str], skipped: Sequence[str]
) -> list[AuditRule]:
    """The rules that are asked, in their order. Raises CouldNot for what names none."""
    chosen = [one for pattern in _each(wanted) for one in _named(known, pattern)] or list(known)
    out = {one for pattern in _each(skipped) for one in _named(known, pattern)}
    return [rule for name, rule in known.items() if name in chosen and name not in out]


def _each(words: Sequence[str]) -> list[str]:
    """Each word, also of lists with commas."""
    return [one for word in words for one in word.split(",") if one]


def _named(known: Mapping[str, AuditRule], pattern: str) -> list[str]:
    """Ids that a pattern names, or of a topic. Raises CouldNot."""
    found = fnmatch.filter(known, pattern)
    found += [name for name, rule in known.items() if rule.topic == pattern]
    if not found:
        near = difflib.get_close_matches(pattern, known, 1)
        hint = f"; did you mean {near[0]}?" if near else "; tuned-virt audit --list has all"
        raise CouldNot(f"no rule is named {pattern}{hint}")
    return found


def _suppressions(file: str | None, known: Mapping[str, AuditRule]) -> list[Suppression]:
    """Raises CouldNot for a file that is named and is not there, or not right."""
    if file is None and not os.path.exists(SUPPRESSIONS):
        return []
    name = file or SUPPRESSIONS
    try:
        return parse(text_of(Path(name)), name, list(known))
    except SuppressionError as error:
        raise CouldNot(str(error)) from error


def _describe(
    options: argparse.Namespace, known: Mapping[str, AuditRule], chosen: list[AuditRule]
) -> int:
    if options.sarif:
        raise CouldNot("--sarif is for findings: --list and --explain print text, or --json")
    rules = [known[name] for name in _named(known, options.explain)] if options.explain else chosen
    if options.json:
        json_output.emit("audit-rules", {"rules": list(map(audit_content.rule_content, rules))})
    elif options.explain:
        print("\n\n".join(map(audit_text.explained, rules)))
    else:
        audit_text.show_rules(rules)
    return FINE
