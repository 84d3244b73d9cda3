# SPDX-License-Identifier: GPL-2.0-or-later
"""Every rule has a scene that fails and one that passes, a source, and a page of its own words."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping

import pytest

from scripts import audit_rules
from tests.guide import SECTIONS
from tests.unit.audit.scenes import Case, guest, scene
from tuned_virt.audit.check import AuditFinding, check
from tuned_virt.audit.rule import RULES, Severity, all_rules, guest_rule
from tuned_virt.audit.scene import Scene

TOPICS = sorted({rule.topic for rule in all_rules().values()})


def cases(topic: str) -> Mapping[str, Case]:
    module = importlib.import_module(f"tests.unit.audit.test_{topic}")
    found: Mapping[str, Case] = module.CASES
    return found


def found(rule: str, made: Scene) -> list[AuditFinding]:
    """What one rule finds; a rule that could not be asked is an error here."""
    result = check(made, [all_rules()[rule]])
    assert not result.not_checked, [one.why for one in result.not_checked]
    return list(result.findings)


@pytest.mark.parametrize("topic", TOPICS)
def test_each_rule_finds_what_it_should_and_nothing_else(topic: str) -> None:
    known = cases(topic)
    assert known.keys() == {name for name, rule in all_rules().items() if rule.topic == topic}
    for rule, case in known.items():
        first = found(rule, case.fails)
        assert case.found in [one.what for one in first], (rule, [one.what for one in first])
        commands = {one.command for one in first if one.what == case.found}
        assert case.command in commands, (rule, commands)
        for what, made in case.also.items():
            assert what in [one.what for one in found(rule, made)], (rule, what)
        for made in (case.passes, *case.fine):
            assert [one.what for one in found(rule, made)] == [], rule


@pytest.mark.parametrize("topic", TOPICS)
def test_each_rule_says_why_and_by_whom(topic: str) -> None:
    for rule in (one for one in all_rules().values() if one.topic == topic):
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", rule.id)
        texts = (rule.checks, rule.advice, rule.why)
        assert all(10 < len(text) < 200 and "\n" not in text for text in texts), rule.id
        assert not [text for text in texts if text.endswith(".")], rule.id
        assert rule.guide or rule.page, f"{rule.id} names no source"
        assert not rule.guide or rule.guide in SECTIONS, rule.id
        assert not rule.page or re.match(r"https://[\w.-]+/\S+$", rule.page), rule.id
        assert rule.check.__doc__, rule.id


def test_settings_of_profiles_are_real() -> None:
    for rule in all_rules().values():
        if rule.profile:
            file = audit_rules.SOURCE / f"profiles/{rule.profile.profile}/defaults.conf"
            known = dict(re.findall(r"^(\w+)=(.*)$", file.read_text(), re.MULTILINE))
            named = re.findall(
                r"\b(\w+_\w+|thp|power|arp_filter)\b(?:=([\w-]+))?", rule.profile.setting
            )
            assert named, rule.id
            for name, value in named:
                assert name in known, (rule.id, name)
                assert not rule.profile.by_itself or value == known[name], (rule.id, name)


def test_nobody_has_anything_against_a_good_guest() -> None:
    result = check(scene(guest()), all_rules().values())
    assert [(one.rule.id, one.what) for one in result.findings] == []
    assert not result.not_checked


def test_a_rule_is_there_once() -> None:
    name = next(iter(all_rules()))
    with pytest.raises(ValueError, match="is there twice"):
        guest_rule(name, Severity.INFO, checks="c", advice="a", why="w")(RULES[name].check)


def test_the_page_of_rules_is_what_the_rules_say() -> None:
    assert audit_rules.PAGE.read_text() == audit_rules.page(), "run scripts/audit_rules.py"


def test_the_guide_has_its_sections_and_each_its_rules() -> None:
    text = audit_rules.GUIDES.read_text()
    assert audit_rules.guide(text) == text, "run scripts/audit_rules.py"
    found = re.findall(r"^(?:## |\| )(\d[\d.]*) (.*?)(?: \| .*)?$", text, re.MULTILINE)
    assert found == list(SECTIONS.items())
    rows = [line for line in text.splitlines() if re.match(r"\| \d", line)]
    assert all(line.count(" | ") == 4 for line in rows)
