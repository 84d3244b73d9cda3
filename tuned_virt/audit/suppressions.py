# SPDX-License-Identifier: GPL-2.0-or-later
"""Findings that somebody knows about and accepts, each with the reason.

In a file a line is RULE GUEST REASON; RULE and GUEST are patterns as of a shell, GUEST in quotes
where it has spaces, and - for the host. In a guest's own <metadata> it is
<audit xmlns="urn:tuned-virt-plus:audit:1"><skip rule="RULE" reason="REASON"/></audit>.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

from tuned_virt.audit.rule import AuditRule
from tuned_virt.audit.scene import AuditedGuest
from tuned_virt.frozen_dataclasses import dataclass

HOST = "-"

LINE = re.compile(r"""(?P<rule>\S+)\s+(?:"(?P<quoted>[^"]*)"|(?P<guest>\S+))\s+(?P<reason>\S.*)""")

METADATA = "the guest's metadata"


class SuppressionError(ValueError):
    """A line that says no rule, no guest or no reason."""


@dataclass(frozen=True)
class Suppression:
    """What is not counted, why, and where that is written."""

    rule: str
    guest: str
    reason: str
    where: str


def parse(text: str, name: str, known: Sequence[str]) -> list[Suppression]:
    """The lines of a file. Raises SuppressionError, which names the line."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = LINE.fullmatch(line.strip())
        if not parts:
            raise SuppressionError(f"{name}: line {number}: write RULE GUEST REASON; all three")
        if not fnmatch.filter(known, parts["rule"]):
            raise SuppressionError(f"{name}: line {number}: no rule is named {parts['rule']}")
        guest = parts["guest"] if parts["quoted"] is None else parts["quoted"]
        found.append(Suppression(parts["rule"], guest, parts["reason"], f"{name}:{number}"))
    return found


def matching(
    rule: AuditRule, guest: AuditedGuest | None, suppressions: Sequence[Suppression]
) -> Suppression | None:
    """What suppresses this rule on this guest: the file's first, then the guest's own."""
    name = HOST if guest is None else guest.guest.name
    for one in suppressions:
        host = one.guest == HOST
        same = host if guest is None else not host and fnmatch.fnmatchcase(name, one.guest)
        if same and fnmatch.fnmatchcase(rule.id, one.rule):
            return one
    own = guest.hardware.skips if guest else {}
    for pattern, reason in own.items():
        if reason and fnmatch.fnmatchcase(rule.id, pattern):
            return Suppression(pattern, name, reason, METADATA)
    return None


def ignored(guest: AuditedGuest, known: Sequence[str]) -> list[str]:
    """What is wrong with the guest's own suppressions, which then suppress nothing."""
    found = []
    for pattern, reason in guest.hardware.skips.items():
        if not fnmatch.filter(known, pattern):
            found.append(f"guest {guest.name}: its metadata skips {pattern!r}, which is no rule")
        elif not reason:
            found.append(f"guest {guest.name}: its metadata skips {pattern} without a reason")
    return found
