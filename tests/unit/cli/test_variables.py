# SPDX-License-Identifier: GPL-2.0-or-later
"""A variables file is read as TuneD reads it; tests/system/test_variables.py asks TuneD itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuned_virt.cli import plan, variables
from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.plan import PlanRequest
from tuned_virt.cli.variables import SetVariable
from tuned_virt.placement import PlacementMode
from tuned_virt.plugins.vm_pinning.policy import Persist, RunningGuests


def read(tmp_path: Path, text: str) -> list[SetVariable]:
    file = tmp_path / "v.conf"
    file.write_text(text)
    return variables.read(file)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=x ; y", "x ; y"),
        ("a=x # y", "x"),
        ("a=x#y", "x#y"),
        (" a = x ", "x"),
        ("a=x\n  y", "x\ny"),
        ("a=x\na=z", "z"),
        ("mode=x\na=${mode}/${mode}", "x/x"),
        ("a=${later}\nlater=x", "${later}"),
        ("mode=x\na=\\${mode}", "${mode}"),
        ("mode=x\n[more]\na=${mode}", "x"),
        ("a=", ""),
        ("; b=1\n# c=1\na=x", "x"),
    ],
)
def test_a_value_is_what_tuned_makes_of_it(tmp_path: Path, text: str, value: str) -> None:
    assert {one.name: one.value for one in read(tmp_path, text)}["a"] == value


def test_the_line_is_that_of_the_value_that_counts(tmp_path: Path) -> None:
    assert read(tmp_path, "\na=1\n# a=2\na = 3\nab=4\n") == [
        SetVariable("a", "3", 4),
        SetVariable("ab", "4", 5),
    ]


@pytest.mark.parametrize("text", ["export a", "a-b=1", "a=1\n\nksm_mode: off"])
def test_what_sets_nothing_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(CouldNot, match=r"line \d: '.*' is not of the form NAME=VALUE"):
        read(tmp_path, text)


def test_a_function_of_tuneds_is_not_guessed(tmp_path: Path) -> None:
    file = tmp_path / "v.conf"
    file.write_text("other=${f:exec:ls}\n\nvm_policy=${f:exec:ls}\n")
    with pytest.raises(CouldNot, match="line 3: vm_policy calls a function that only TuneD"):
        plan.read_asked(str(file), [])


def test_a_semicolon_is_no_comment_for_plan_either(tmp_path: Path) -> None:
    file = tmp_path / "v.conf"
    file.write_text("vm_policy=dedicated   ; our choice\n")
    with pytest.raises(CouldNot, match="line 1: option 'policy': 'dedicated   ; our choice'"):
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
