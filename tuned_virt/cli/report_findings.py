# SPDX-License-Identifier: GPL-2.0-or-later
"""A report's findings: by rule, worst first, guests with the same finding together. Pure.

A thousand guests of one image have the same findings: each is said once, and one loop mends all.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tuned_virt.frozen_dataclasses import dataclass

LEVELS = ("error", "warning", "info")

NAME = "$guest"


@dataclass(frozen=True)
class SameFinding:
    """What was found alike of these guests, none for the host, and the command that mends it.

    each   of a command that is a loop over all of them: what it runs for one
    """

    found: str
    guests: tuple[str, ...]
    command: str
    each: str = ""


@dataclass(frozen=True)
class RuleFindings:
    """All that one rule has found, at one severity."""

    rule: str
    severity: str
    advice: str
    why: str
    source: str
    profile: str
    same: tuple[SameFinding, ...]

    @property
    def guests(self) -> int:
        """How many guests have it."""
        return len({name for one in self.same for name in one.guests})


def by_rule(content: Mapping[str, Any]) -> list[RuleFindings]:
    """What `audit --json` has, without what is suppressed."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in content["findings"]:
        if not one["suppressed"]:
            groups.setdefault((one["severity"], one["rule"]), []).append(one)
    made = [_rule(found) for found in groups.values()]
    return sorted(made, key=lambda one: (LEVELS.index(one.severity), -one.guests, one.rule))


def _rule(found: Sequence[Mapping[str, Any]]) -> RuleFindings:
    first = found[0]
    source, profile = first["source"], first["profile"]
    told = [f"guide {source['guide']}"] if source["guide"] else []
    told += [source["page"]] if source["page"] else []
    return RuleFindings(
        first["rule"],
        first["severity"],
        first["advice"],
        first["why"],
        "; ".join(told),
        _profile(profile) if profile else "",
        tuple(_same(found)),
    )


def _profile(profile: Mapping[str, Any]) -> str:
    how = "by itself" if profile["by_itself"] else "with"
    return f"{profile['profile']} does this {how}: {profile['setting']}"


def _same(found: Iterable[Mapping[str, Any]]) -> list[SameFinding]:
    """Most guests first."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in found:
        groups.setdefault((one["found"], _common(one)), []).append(one)
    made = [_together(text, common, ones) for (text, common), ones in groups.items()]
    return sorted(made, key=lambda one: -len(one.guests))


def _together(text: str, common: str, found: Sequence[Mapping[str, Any]]) -> SameFinding:
    names = tuple(dict.fromkeys(one["guest"] for one in found if one["guest"] is not None))
    if len(names) < 2 or f'"{NAME}"' not in common:
        commands = dict.fromkeys(one["command"] or "" for one in found)
        return SameFinding(text, names, "\n".join(filter(None, commands)))
    handles = " ".join(dict.fromkeys(_handle(one) or "" for one in found))
    return SameFinding(text, names, f"for guest in {handles}; do {common}; done", common)


def _handle(one: Mapping[str, Any]) -> str | None:
    """How its command names the guest: by its name, or by its UUID; None where it does not."""
    if not one["command"] or one["guest"] is None:
        return None
    words = one["command"].split()
    quoted = shlex.quote(one["guest"])
    named = [quoted, *([one["uuid"]] if one["uuid"] else [])]
    return next((name for name in named if name in words or f" {name} " in one["command"]), None)


def _common(one: Mapping[str, Any]) -> str:
    """The command with $guest for the guest, where a shell would put its name there."""
    command = one["command"] or ""
    handle = _handle(one)
    if handle is None:
        return str(command)
    pattern = rf"(?<!\S){re.escape(handle)}(?!\S)"
    common, count = re.subn(pattern, lambda _: f'"{NAME}"', command)
    try:
        whole = shlex.split(common).count(NAME) == count
    except ValueError:
        whole = False
    return common if whole else str(command)
