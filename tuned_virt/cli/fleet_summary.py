# SPDX-License-Identifier: GPL-2.0-or-later
"""What the hosts of a fleet have together: read or not, findings by rule, the worst hosts first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tuned_virt.cli import table
from tuned_virt.cli.common import FINE
from tuned_virt.model.guest import printable

WORST = 20
"""Hosts that are named with what they have, and as many that could not be read."""

HOSTS = ("<host", "errors", "warnings", "infos", "unplaced", "ungranted")
RULES = ("<rule", "<severity", "findings", "hosts")
SEVERITIES = ("error", "warning", "info")


class FleetSummary:
    """Takes one host after the other; what it keeps does not grow with their number."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._failed: list[tuple[str, str]] = []
        self._failures = 0
        self._worst: list[tuple[tuple[int, ...], str, str]] = []
        self._guests: Counter[str] = Counter()
        self._findings: Counter[tuple[str, str]] = Counter()
        self._affected: Counter[tuple[str, str]] = Counter()
        self.hosts = 0
        self.code = FINE

    def add(self, source: str, content: Mapping[str, Any], code: int) -> None:
        """A host, as its line says it, and its exit status."""
        self.hosts += 1
        self.code = max(self.code, code)
        if "error" in content:
            self._failures += 1
            self._failed = [*self._failed, (source, content["error"])][:WORST]
            return
        figures = self._counted(content)
        if any(figures):
            found = [*self._worst, (figures, source, content["host_name"])]
            found.sort(key=lambda one: [-figure for figure in one[0]])
            self._worst = found[:WORST]

    def _counted(self, content: Mapping[str, Any]) -> tuple[int, ...]:
        """A host's findings by severity, and its guests that are not placed, or not as wished."""
        placements = content.get("placements", ())
        self._guests.update(one["kind"] for one in placements)
        found = [one for one in content.get("findings", ()) if not one["suppressed"]]
        rules = Counter((one["severity"], one["rule"]) for one in found)
        self._findings.update(rules)
        self._affected.update(rules.keys())
        by_severity = Counter(one["severity"] for one in found)
        unplaced = sum(one["kind"] == "unplaced" for one in placements)
        ungranted = sum(bool(one["ungranted"]) for one in placements)
        return (*(by_severity[one] for one in SEVERITIES), unplaced, ungranted)

    def content(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {
            "of": self._kind,
            "hosts": {"done": self.hosts - self._failures, "failed": self._failures},
            "failed": [{"host": source, "error": why} for source, why in self._failed],
            "guests": dict(sorted(self._guests.items())),
            "rules": [
                {"rule": rule, "severity": severity, "findings": count, "hosts": hosts}
                for severity, rule, count, hosts in self._rules()
            ],
            "worst": [
                {
                    "host": source,
                    "host_name": name,
                    **dict(zip(("errors", "warnings", "infos", "unplaced", "ungranted"), figures)),
                }
                for figures, source, name in self._worst
            ],
        }

    def _rules(self) -> list[tuple[str, str, int, int]]:
        """Worst severity first, then by how often."""
        found = [(*key, count, self._affected[key]) for key, count in self._findings.items()]
        return sorted(found, key=lambda one: (SEVERITIES.index(one[0]), -one[2], one[1]))

    def lines(self) -> Iterator[str]:
        """In words."""
        done = "planned" if self._kind == "plan" else "checked"
        yield f"hosts     {self.hosts - self._failures} {done}, {self._failures} could not be read"
        if self._guests:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self._guests.items()))
            yield f"guests    {sum(self._guests.values())}: {kinds}"
        yield from (f"failed    {why}" for _, why in self._failed)
        if self._failures > len(self._failed):
            yield f"failed    and {self._failures - len(self._failed)} more"
        if self._findings:
            rows = [(rule, severity, *counts) for severity, rule, *counts in self._rules()]
            yield from ("", *table.lines(RULES, rows, None))
        if self._worst:
            yield from ("", *table.lines(HOSTS, map(_worst_row, self._worst), None))


def _worst_row(one: tuple[tuple[int, ...], str, str]) -> tuple[object, ...]:
    figures, source, name = one
    return (f"{printable(name)} ({source})" if name else source, *figures)
