# SPDX-License-Identifier: GPL-2.0-or-later
"""A soak's steps: the same for a seed, each possible, and each that there is."""

from __future__ import annotations

from itertools import islice

import pytest

from tests.soak.scene import Scene
from tests.soak.steps import WEIGHTS, Course, Step

MANY = 20000


def first(seed: int, count: int) -> list[Step]:
    """The first steps of a seed."""
    return list(islice(Course(seed).steps(), count))


def test_a_seed_repeats_its_steps() -> None:
    assert first(7, 500) == first(7, 500)
    assert first(7, 500) != first(8, 500)


@pytest.mark.large
def test_each_kind_is_taken_and_can_be() -> None:
    taken = {step.kind for step in first(1, MANY)}
    assert taken == WEIGHTS.keys()
    for kind in WEIGHTS:
        assert callable(getattr(Scene, f"_{kind.replace(' ', '_')}"))


@pytest.mark.parametrize("seed", range(5))
def test_no_step_is_taken_of_what_is_not_there(seed: int) -> None:
    tuned, guests, disks = True, set(), set()
    for step in first(seed, 2000):
        if step.kind in ("switch", "off", "verify", "kill tuned"):
            assert tuned, step
        tuned = {"kill tuned": False, "terminate tuned": False, "start tuned": True}.get(
            step.kind, tuned
        )
        if step.kind == "start guest":
            assert step.about not in guests
            guests.add(step.about)
        elif step.kind == "stop guest":
            guests.remove(step.about)
        elif step.kind == "add disk":
            assert step.about not in disks
            disks.add(step.about)
        elif step.kind == "remove disk":
            disks.remove(step.about)


@pytest.mark.parametrize("seed", range(5))
def test_a_restore_without_tuned_leaves_no_profile_to_verify(seed: int) -> None:
    tuned, profile = True, ""
    for step in first(seed, 2000):
        if step.kind in ("verify", "drift", "reload tuned"):
            assert profile, step
        if step.kind == "switch":
            profile = step.about
        elif step.kind in ("off", "few descriptors", "little memory") or (
            step.kind == "restore" and not tuned
        ):
            profile = ""
        tuned = {"kill tuned": False, "terminate tuned": False, "start tuned": True}.get(
            step.kind, tuned
        )
