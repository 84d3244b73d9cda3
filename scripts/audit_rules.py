# SPDX-License-Identifier: GPL-2.0-or-later
"""Write docs/audit-rules.7.md and the audit's column of docs/guide.md from the rules' own metadata.

Tests compare them.
"""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(SOURCE))

from tuned_virt.audit.rule import GUIDE, AuditRule, all_rules  # noqa: E402

PAGE = SOURCE / "docs/audit-rules.7.md"
GUIDES = SOURCE / "docs/guide.md"

HEAD = f"""# tuned-virt-audit-rules(7)

## NAME

tuned-virt-audit-rules - the rules of tuned-virt audit

## DESCRIPTION

Each rule of tuned-virt-audit(1) with its severity, what it checks for, what is advised and why,
and its source: a section of the [guide]({GUIDE}), and a page of the kernel, libvirt, QEMU or Red
Hat. *error* breaks, *warning* costs, *info* may matter. Words in capitals in a command are filled
in by the audit. Written by scripts/audit_rules.py.

"""


def page() -> str:
    """The whole page, a part per topic."""
    topics = itertools.groupby(all_rules().values(), key=lambda rule: rule.topic)
    parts = (f"## {topic.upper()}\n\n" + "\n".join(map(entry, rules)) for topic, rules in topics)
    return HEAD + "\n".join(parts)


def entry(rule: AuditRule) -> str:
    """One rule."""
    sources = [f"guide {rule.guide}"] if rule.guide else []
    sources += [f"<{rule.page}>"] if rule.page else []
    lines = [
        f"**{rule.id}** ({rule.severity.value})",
        f": Checks for {rule.checks}. Advised: {rule.advice}. Why: {rule.why}.",
    ]
    lines += [f"  Command: `{rule.template}`."] if rule.template else []
    lines += [f"  {rule.profile}."] if rule.profile else []
    lines += [f"  Source: {'; '.join(sources)}.", ""]
    return "\n".join(lines)


def guide(text: str) -> str:
    """The guide's tables, the third column with the rules of each section."""
    lines = []
    for line in text.splitlines():
        row = re.match(r"\| (\d+(?:\.\d+)+) ", line)
        if row:
            cells = line.split(" | ")
            found = [rule.id for rule in all_rules().values() if rule.guide == row[1]]
            cells[2] = ", ".join(f"`{name}`" for name in found) or "–"
            line = " | ".join(cells)  # noqa: PLW2901 - the line is what is written
        lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    GUIDES.write_text(guide(GUIDES.read_text()))
