# SPDX-License-Identifier: GPL-2.0-or-later
"""What `audit` prints for people: findings by guest, worst first; a rule explained."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from tuned_virt.audit.check import AuditFinding, AuditResult, NotChecked, by_subject
from tuned_virt.audit.rule import GUIDE, AuditRule, Severity
from tuned_virt.audit.scene import AuditedGuest
from tuned_virt.cli import table
from tuned_virt.cli.audit_content import count
from tuned_virt.cli.audit_input import AuditInput, subjects

WIDTH = 100
INDENT = " " * 10


def show(gathered: AuditInput, result: AuditResult, notes: Sequence[str]) -> None:
    """Print all of it."""
    for guest, findings in by_subject(result.counted):
        print(_named(guest))
        for one in findings:
            print(*_finding(one), sep="\n")
        print()
    for line in _rest(gathered, result, notes):
        print(line)
    print(_summary(gathered, result))


def _named(guest: AuditedGuest | None) -> str:
    if guest is None:
        return "host"
    return f"guest {guest.name}" + (f"  ({guest.file})" if guest.file else "")


def _finding(one: AuditFinding) -> Iterator[str]:
    yield f"  {one.severity.value:8}{one.rule.id}: {one.what}"
    yield from _folded("advised", one.advice)
    yield from _folded("why", one.rule.why)
    if one.command:
        yield f"{INDENT}command: {one.command}"
    if one.rule.profile:
        yield from _folded("profile", str(one.rule.profile))
    yield f"{INDENT}source:  {source(one.rule)}"


def _folded(name: str, text: str) -> list[str]:
    """In a terminal's width; a pipe gets one line."""
    first = f"{INDENT}{name + ':':9}"
    if not sys.stdout.isatty():
        return [first + text]
    width = shutil.get_terminal_size().columns
    return textwrap.wrap(
        text, max(width, 40), initial_indent=first, subsequent_indent=" " * len(first)
    )


def source(rule: AuditRule) -> str:
    """Section of the guide, and page."""
    parts = [f"guide {rule.guide}"] if rule.guide else []
    return "; ".join([*parts, rule.page] if rule.page else parts)


def _rest(gathered: AuditInput, result: AuditResult, notes: Sequence[str]) -> Iterator[str]:
    for name, why in gathered.others:
        yield f"not checked: {name}: {why}"
    for name, why in gathered.unreadable:
        yield f"could not be read: {why if why.startswith(name) else f'{name}: {why}'}"
    yield from _not_checked(result.not_checked)
    for finding in result.findings:
        if finding.suppressed:
            accepted = finding.suppressed
            subject = "host" if finding.guest is None else finding.guest.name
            yield (
                f"suppressed: {subject}: {finding.rule.id}: {accepted.reason} ({accepted.where})"
            )
    for note in notes:
        yield f"note: {note}"


def _not_checked(ones: Sequence[NotChecked]) -> Iterator[str]:
    """By rule and reason; with the guests, where it could be asked about others."""
    grouped: dict[tuple[str, str], list[str]] = {}
    without_guests = Counter(one.why for one in ones if one.rule.of_guest and one.guest is None)
    for why, number in without_guests.items():
        yield f"not checked: all {number} rules about guests: {why}"
    for one in ones:
        if one.rule.of_guest and one.guest is None:
            continue
        names = grouped.setdefault((one.rule.id, one.why), [])
        if one.guest is not None:
            names.append(one.guest.name)
    by_reason: dict[tuple[str, str], list[str]] = {}
    for (rule, why), names in grouped.items():
        of = f" for {', '.join(names[:6])}" if names else ""
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        by_reason.setdefault((why, of + more), []).append(rule)
    for (why, of), rules in by_reason.items():
        yield f"not checked: {', '.join(rules)}{of}: {why}"


def _summary(gathered: AuditInput, result: AuditResult) -> str:
    counts = [(count(result, level), level.value) for level in Severity]
    told = ", ".join(f"{number} {name}" for number, name in counts)
    suppressed = len(result.findings) - len(result.counted)
    more = f", {suppressed} suppressed" if suppressed else ""
    return f"{' and '.join(subjects(gathered))}: {told}{more}"


# --- rules ----------------------------------------------------------------------------------------


def show_rules(rules: Sequence[AuditRule]) -> None:
    """A table of rules."""
    rows = [(one.id, one.severity.value, one.guide or None, one.checks) for one in rules]
    table.show(("<rule", "<severity", "<guide", "<checks for"), rows)


def explained(rule: AuditRule) -> str:
    """One rule in full."""
    subject = "each guest" if rule.of_guest else "the host"
    lines = [
        f"{rule.id} ({rule.severity.value}, of {subject})",
        f"  checks for  {rule.checks}",
        f"  advised     {rule.advice}",
        f"  why         {rule.why}",
        f"  source      {source(rule)}",
    ]
    lines += [f"  command     {rule.template}"] if rule.template else []
    lines += [f"  profile     {rule.profile or 'our profiles do not change it'}"]
    lines += [f"  guide       {GUIDE}"] if rule.guide else []
    return "\n".join(lines)
