# SPDX-License-Identifier: GPL-2.0-or-later
"""Families of the profile, a verification, an audit, and libvirt."""

from __future__ import annotations

from collections.abc import Iterable

from tuned_virt.metrics import tuning
from tuned_virt.metrics.family import FamilySamples
from tuned_virt.metrics.tuning import ProfileValues


def plain(samples: Iterable[FamilySamples]) -> dict[str, dict[tuple[str, ...], float]]:
    return {one.family.name.removeprefix("tuned_virt_"): dict(one.values) for one in samples}


def test_no_tuned_is_zero_and_no_profile_is_no_series() -> None:
    assert plain(tuning.of_profile(ProfileValues(False, (), None, None))) == {
        "tuned_up": {(): 0},
        "profile_info": {},
        "profile_switch_timestamp_seconds": {},
        "originals_pending": {},
    }


def test_a_profile_that_is_named_twice_is_one_series() -> None:
    found = plain(tuning.of_profile(ProfileValues(True, ("a", "b", "a"), 17.5, 0)))
    assert found["profile_info"] == {("a",): 1, ("b",): 1}
    assert found["profile_switch_timestamp_seconds"] == {(): 17.5}
    assert found["originals_pending"] == {(): 0}


def test_a_verification_counts_each_result() -> None:
    found = plain(tuning.of_verify(False, ["passed", "failed", "failed", "note"], ["swappiness"]))
    assert found == {
        "verify_success": {(): 0},
        "settings_differing": {(): 1},
        "verify_lines": {("passed",): 1, ("failed",): 2, ("missing",): 0, ("note",): 1},
    }


def test_an_audit() -> None:
    assert plain(tuning.of_audit({"error": 0, "warning": 3, "info": 1}, 2, 7)) == {
        "audit_findings": {("error",): 0, ("warning",): 3, ("info",): 1},
        "audit_suppressed_findings": {(): 2},
        "audit_unchecked": {(): 7},
    }


def test_a_libvirt_that_does_not_answer_is_down_and_its_guests_are_not_known() -> None:
    assert plain(tuning.of_libvirt(None)) == {"libvirt_up": {(): 0}, "libvirt_guests": {}}
    assert plain(tuning.of_libvirt(0)) == {"libvirt_up": {(): 1}, "libvirt_guests": {(): 0}}
