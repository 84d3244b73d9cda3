# SPDX-License-Identifier: GPL-2.0-or-later
"""Findings alike are told once, and the loop that mends them runs the commands of the audit."""

from __future__ import annotations

import shlex
from typing import Any

from tuned_virt.cli.report_findings import by_rule


def finding(guest: str | None, command: str, **more: Any) -> dict[str, Any]:
    return {
        "rule": "device-tablet",
        "severity": "info",
        "guest": guest,
        "uuid": f"uuid-{guest}",
        "found": "a tablet",
        "advice": "remove it",
        "why": "it costs",
        "source": {"guide": "3.3.5", "page": None},
        "command": command or None,
        "profile": None,
        "suppressed": None,
        **more,
    }


def run(command: str) -> list[list[str]]:
    """The commands, in words, that a shell would run for one that may be a loop."""
    if not command.startswith("for guest in "):
        return [shlex.split(line) for line in command.splitlines()]
    names, _, rest = command.removeprefix("for guest in ").partition("; do ")
    body = shlex.split(rest.removesuffix("; done"))
    return [[name if word == "$guest" else word for word in body] for name in shlex.split(names)]


def test_the_loop_is_the_commands_of_all() -> None:
    """Also of guests that are named like a word of the command, or not by their name at all."""
    cases = {
        "plain": ["web-1", "web-2", "web-3"],
        "quoted": ["it's", "a b", "$(reboot)", "`id`;#"],
        "words of the command": ["web", "--remove-device", "virt-xml", "type=tablet"],
        "one": ["web"],
    }
    for case, names in cases.items():
        commands = [f"virt-xml {shlex.quote(one)} --remove-device type=tablet" for one in names]
        [rule] = by_rule({"findings": [finding(*pair) for pair in zip(names, commands)]})
        made = [words for same in rule.same for words in run(same.command)]
        assert sorted(made) == sorted(map(shlex.split, commands)), case
        assert rule.guests == len(names)
        assert sorted(name for same in rule.same for name in same.guests) == sorted(names)
    [rule] = by_rule({"findings": [finding(n, f"virsh edit uuid-{n}") for n in ("-a", "-b")]})
    assert [one.command for one in rule.same] == [
        'for guest in uuid--a uuid--b; do virsh edit "$guest"; done'
    ]
    assert [one.each for one in rule.same] == ['virsh edit "$guest"']


def test_a_name_inside_quotes_of_the_command_is_left_there() -> None:
    found = [finding(n, f"ssh host 'virsh edit {n} now'") for n in ("a", "b")]
    [rule] = by_rule({"findings": found})
    assert [one.command for one in rule.same] == [one["command"] for one in found]


def test_worst_first_and_nothing_that_is_suppressed() -> None:
    found = [
        finding("a", ""),
        finding("a", "", rule="b", severity="error"),
        finding(None, "", rule="c", severity="error"),
        finding("b", "", rule="d", severity="error", suppressed={"where": "x", "reason": "y"}),
        finding("b", "", found="two tablets"),
    ]
    rules = by_rule({"findings": found})
    assert [(one.rule, one.guests) for one in rules] == [("b", 1), ("c", 0), ("device-tablet", 2)]
    assert [(one.found, one.guests) for one in rules[2].same] == [
        ("a tablet", ("a",)),
        ("two tablets", ("b",)),
    ]
