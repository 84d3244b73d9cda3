# SPDX-License-Identifier: GPL-2.0-or-later
"""The command reads settings files as the plugins do, and says the same of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuned_virt.cli import plan, settings_file
from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.plan import PlanRequest
from tuned_virt.placement import PlacementMode
from tuned_virt.plugins.vm_pinning.policy import Persist, RunningGuests


def test_a_function_of_tuneds_is_not_guessed(tmp_path: Path) -> None:
    file = tmp_path / "v.conf"
    file.write_text("ksm_mode=${f:exec:ls}\n\nvm_policy=${f:exec:ls}\n")
    with pytest.raises(CouldNot, match=r"line 3: 'vm_policy=.*': only TuneD can evaluate"):
        plan.read_asked(str(file), [])


def test_a_semicolon_is_no_comment_for_plan_either(tmp_path: Path) -> None:
    file = tmp_path / "v.conf"
    file.write_text("vm_policy=dedicated   ; our choice\n")
    with pytest.raises(CouldNot, match="line 1: 'vm_policy=dedicated   ; our choice' is not valid"):
        plan.read_asked(str(file), [])


def test_plan_has_all_that_the_file_asks(tmp_path: Path) -> None:
    file = tmp_path / "v.conf"
    file.write_text(
        "mode=dedicated\nvm_policy=${mode}\nvm_persist=config\nvm_grace=30\nvm_running=place\n"
    )
    asked: PlanRequest = plan.read_asked(str(file), [])
    assert asked.policy.placement.policy is PlacementMode.DEDICATED
    assert (asked.policy.persist, asked.policy.grace) == (Persist.CONFIG, 30)
    assert asked.policy.running is RunningGuests.PLACE


def test_a_misspelt_name_is_not_ignored_by_plan(tmp_path: Path) -> None:
    file = tmp_path / "v.conf"
    file.write_text("vm_polcy=none\n")
    with pytest.raises(CouldNot, match=r"line 1: 'vm_polcy=none' is not a setting: did you mean"):
        plan.read_asked(str(file), [])


def test_what_concerns_other_plugins_does_not_hinder(tmp_path: Path) -> None:
    file = tmp_path / "v.conf"
    file.write_text("ksm_mod=off\nksm_mode=of\nvm_policy=none\n")
    assert plan.read_asked(str(file), []).policy.placement.policy is PlacementMode.NONE


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("virtual-guest-plus-variables.conf", "virtual-guest-plus"),
        ("virtual-host-plus-variables.conf", "virtual-host-plus"),
        ("new.conf", "virtual-host-plus"),
    ],
)
def test_the_profile_of_a_file(name: str, profile: str) -> None:
    assert settings_file.profile_of(Path("/tmp") / name) == profile
