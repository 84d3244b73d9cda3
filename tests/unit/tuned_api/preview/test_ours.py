# SPDX-License-Identifier: GPL-2.0-or-later
"""Sections of this project's own plugins in a preview."""

from __future__ import annotations

from tests.unit.tuned_api.preview.profiles import Profiles
from tuned_virt.plugins.vm_pinning.policy import PinningPolicy

SCAN = "/sys/kernel/mm/ksm/pages_to_scan"


def test_a_planned_plugins_own_plan(profiles: Profiles) -> None:
    found = profiles.preview("[ksm]\npages_to_scan=4321\n")
    [value] = found.values
    assert (value.plugin, value.section, value.path) == ("ksm", "ksm", SCAN)
    assert (value.after.value, value.unit) == ("4321", "pages")
    assert str(value.wanted_by).endswith("/new/tuned.conf:3")


def test_a_bad_option_is_refused_in_the_plugins_words(profiles: Profiles) -> None:
    found, guests = profiles.both("[ksm]\nrun=7\npages_to_scan=1\n[vm_pinning]\npolicy=dedicatd\n")
    assert (found.values, guests) == ([], [])
    said = [str(one) for one in found.refused]
    assert "ksm: option 'run': '7' is not valid: one of 0, 1, 2" in said[0]
    assert "option 'policy': 'dedicatd' is not valid" in said[1]
    assert all("no setting of" in text for text in said)


def test_observe_changes_nothing_and_says_how_much_it_would(profiles: Profiles) -> None:
    found = profiles.preview("[ksm]\npages_to_scan=4321\nobserve=1\n")
    assert found.changes == []
    said = "observe=1: the plugins of tuned-virt-plus set nothing; without it they would set: ksm 1"
    assert said in [str(one) for one in found.notes]


def test_sections_for_guests_are_handed_on(profiles: Profiles) -> None:
    text = "[db]\ntype=vm_pinning\npriority=-1\ndevices=db*\npolicy=dedicated\n[vm_pinning]\n"
    _, guests = profiles.both(text)
    assert [(one.section, one.devices) for one in guests] == [("db", "db*"), ("vm_pinning", "*")]
    assert all(isinstance(one.policy, PinningPolicy) for one in guests)


def test_crash_guard_sets_nothing_of_its_own(profiles: Profiles) -> None:
    assert profiles.preview("[crash_guard]\npriority=-100\n").values == []
