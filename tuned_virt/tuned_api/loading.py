# SPDX-License-Identifier: GPL-2.0-or-later
"""What a profile of ours leaves out of its stock parent, while TuneD loads it.

TuneD merges sections by name alone, so a section that drops or disables options of the stock parent
does so to those of every profile before it. TuneD merges once all files are read: until then each
profile is an object of its own, from which a section can be taken.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from tuned_virt.core.installed_profiles import OURS, InstalledProfiles

LOADING = "_load_profile"
"""TuneD's method, which calls itself for what a profile includes; the same since TuneD 2.20."""

log = logging.getLogger("tuned")


def leave_out(*sections: str) -> str:
    """Take sections, or options as SECTION.OPTION, out of the stock profiles that ours include.

    Those that another profile includes as well stay as they are. Nothing to include: "".
    """
    steps = list(_loading())
    if not steps:
        log.error("%s of the stock profile stays: TuneD's loader is not known", ", ".join(sections))
        return ""
    installed = InstalledProfiles(at=tuple(steps[-1]["self"]._profile_locator._load_directories))
    stock = _names(installed, next(filter(_has_others, steps), steps[0]))
    stock = (stock | OURS) - _names(installed, steps[-1])
    for profile in steps[0]["profiles"]:
        if profile.name.lstrip("-") in stock:
            for section in sections:
                _take(profile.units, *section.partition("."))
    return ""


def _loading() -> Iterator[Mapping[str, Any]]:
    """Variables of TuneD's loader's steps under way, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        found = frame.f_locals
        if frame.f_code.co_name == LOADING and {"self", "profile_names", "profiles"} <= {*found}:
            yield found
        frame = frame.f_back


def _has_others(step: Mapping[str, Any]) -> bool:
    return any(name.lstrip("-") not in OURS for name in step["profile_names"])


def _names(installed: InstalledProfiles, step: Mapping[str, Any]) -> set[str]:
    """The profiles that a step loads and all that they include, but for ours and what those do."""
    return {one.name for name in step["profile_names"] for one in installed.chain(name, OURS)}


def _take(units: dict[str, Any], section: str, dot: str, option: str) -> None:
    """A section without options is not nothing: TuneD would tune its devices dynamically."""
    if section in units and dot:
        units[section].options.pop(option, None)
    if section in units and not (dot and units[section].options):
        del units[section]
