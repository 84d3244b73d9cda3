# SPDX-License-Identifier: GPL-2.0-or-later
"""Ask rules about a scene: findings, what is suppressed and why, and what could not be checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tuned_virt.audit.rule import AuditRule, Found, Severity, run
from tuned_virt.audit.scene import AuditedGuest, Scene
from tuned_virt.audit.suppressions import Suppression, matching
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.model.guest import printable
from tuned_virt.model.host_facts import NotKnown


@dataclass(frozen=True)
class AuditFinding:
    """What one rule has found on one guest; `guest` is None for the host.

    command      "" where no command mends it, its manager would undo that, or a name of others
                 in it has control characters
    suppressed   by whom and why it is not counted, None where it is
    """

    rule: AuditRule
    severity: Severity
    guest: AuditedGuest | None
    what: str
    command: str
    suppressed: Suppression | None = None

    @property
    def advice(self) -> str:
        """The rule's; guests of a manager are changed there."""
        manager = self.guest.guest.manager if self.guest else ""
        return f"{self.rule.advice}; in {manager}, which owns it" if manager else self.rule.advice


@dataclass(frozen=True)
class NotChecked:
    """A rule that could not be asked about a guest or the host, and why."""

    rule: AuditRule
    guest: AuditedGuest | None
    why: str


@dataclass(frozen=True)
class AuditResult:
    """All that was found, worst first; `checked` is how many questions were answered."""

    findings: tuple[AuditFinding, ...]
    not_checked: tuple[NotChecked, ...]
    checked: int

    @property
    def counted(self) -> list[AuditFinding]:
        """Those that nobody has suppressed."""
        return [one for one in self.findings if one.suppressed is None]

    def reaches(self, level: Severity) -> bool:
        """Whether something is at this level or worse."""
        return any(one.severity.rank <= level.rank for one in self.counted)


def check(
    scene: Scene, rules: Iterable[AuditRule], suppressions: Sequence[Suppression] = ()
) -> AuditResult:
    """Ask each rule about the host, or about each guest."""
    findings: list[AuditFinding] = []
    unknown: list[NotChecked] = []
    checked = 0
    for rule in rules:
        if rule.of_guest and scene.without_guests:
            unknown.append(NotChecked(rule, None, scene.without_guests))
        for guest in scene.guests if rule.of_guest else (None,):
            try:
                for found in run(rule, guest, scene):
                    findings.append(_finding(rule, guest, found, suppressions))
                checked += 1
            except NotKnown as error:
                unknown.append(NotChecked(rule, guest, str(error)))
    return AuditResult(tuple(_sorted(findings)), tuple(unknown), checked)


def _finding(
    rule: AuditRule,
    guest: AuditedGuest | None,
    found: Found,
    suppressions: Sequence[Suppression],
) -> AuditFinding:
    managed = guest is not None and guest.guest.manager
    command = "" if managed else rule.command(found, guest.handle if guest else "")
    return AuditFinding(
        rule,
        found.severity or rule.severity,
        guest,
        printable(found.what),
        command if command.isprintable() else "",
        matching(rule, guest, suppressions),
    )


def _sorted(findings: list[AuditFinding]) -> Iterator[AuditFinding]:
    """Worst first; a guest's stay together in `by_subject`."""
    yield from sorted(findings, key=lambda one: one.severity.rank)


def by_subject(
    findings: Iterable[AuditFinding],
) -> list[tuple[AuditedGuest | None, list[AuditFinding]]]:
    """Findings by guest, None for the host: first the one with the worst, then with the most."""
    found: dict[tuple[str, str], list[AuditFinding]] = {}
    for one in findings:
        key = ("", "") if one.guest is None else (one.guest.guest.key, one.guest.file)
        found.setdefault(key, []).append(one)

    def order(ones: list[AuditFinding]) -> tuple[list[int], str]:
        counts = [-sum(one.severity is level for one in ones) for level in Severity]
        return counts, ones[0].guest.name if ones[0].guest else ""

    return [(ones[0].guest, ones) for ones in sorted(found.values(), key=order)]
