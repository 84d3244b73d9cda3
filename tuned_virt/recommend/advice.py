# SPDX-License-Identifier: GPL-2.0-or-later
"""What a topic advises: a setting, one that stays as it is, or a step outside our settings."""

from __future__ import annotations

from typing import Union

from tuned_virt.frozen_dataclasses import dataclass


@dataclass(frozen=True)
class RecommendedSetting:
    """A line of the settings file.

    evidence  what was seen, with numbers
    reason    why that calls for the value, in one sentence; source: of whom
    rivals    settings that say the same in another way
    """

    name: str
    value: str
    evidence: str
    reason: str
    source: str
    rivals: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftSetting:
    """What stays at its default, and why; `short`: a need that no setting can serve."""

    topic: str
    why: str
    short: bool = False


@dataclass(frozen=True)
class OutsideStep:
    """What is to be done outside the settings file: a command, and why."""

    command: str
    why: str
    source: str


Advice = Union[RecommendedSetting, LeftSetting, OutsideStep]
