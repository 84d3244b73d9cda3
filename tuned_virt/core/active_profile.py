# SPDX-License-Identifier: GPL-2.0-or-later
"""Which profile TuneD applies when it starts, and which one it applied before one of ours.

TuneD replaces its files before it applies a profile, so the profile before is read while TuneD
makes the plugins of the next one, and recorded once the first of them is applied. TuneD's service
records it too, each time it has started: without a daemon `tuned-adm profile` writes the files
first. The record is beside TuneD's files and lives as long as they do: in an image, in an ostree
commit, and with a transient /etc.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from tuned_virt.core.installed_profiles import InstalledProfiles
from tuned_virt.core.state_file import EVERY_BOOT, StateFile
from tuned_virt.core.system_root import OutsideRootError, SystemRoot
from tuned_virt.frozen_dataclasses import dataclass, replace

log = logging.getLogger("tuned")

NAMES = "/etc/tuned/active_profile"
MODE = "/etc/tuned/profile_mode"
POST_LOADED = "/etc/tuned/post_loaded_profile"
RECORD = "/etc/tuned/virt_plus_previous.json"

MANUAL, AUTOMATIC = "manual", "auto"
"""TuneD's words in its file of the mode."""


@dataclass(frozen=True)
class ActiveProfile:
    """What TuneD is told to apply.

    names           of the profiles, the one that wins last
    automatic       whether TuneD chooses the profile itself each time it starts
    post_loaded     the profile that is loaded after those, "" where none is
    """

    names: tuple[str, ...] = ()
    automatic: bool = False
    post_loaded: str = ""

    @property
    def all(self) -> tuple[str, ...]:
        """Every profile, in the order of loading."""
        return (*self.names, self.post_loaded) if self.post_loaded else self.names

    def __str__(self) -> str:
        named = " ".join(self.all)
        if self.automatic:
            return f"the profile that TuneD chooses ({named})" if named else "TuneD's own choice"
        return named or "no profile"


def read(system: SystemRoot) -> ActiveProfile:
    """What TuneD's files say, as TuneD reads them. Raises OutsideRootError and OSError."""
    names = tuple(system.text(NAMES).split())
    mode = system.text(MODE).strip()
    automatic = mode == AUTOMATIC or (mode == "" and not names)
    return ActiveProfile(names, automatic, system.text(POST_LOADED).strip())


def record_file(system: SystemRoot) -> StateFile[ActiveProfile]:
    """The record of the profile before ours. Raises OutsideRootError."""
    return StateFile(system.path(RECORD), _parse, EVERY_BOOT)


def mode(active: ActiveProfile) -> str:
    """TuneD's word for how it was chosen."""
    return AUTOMATIC if active.automatic else MANUAL


def content(active: ActiveProfile) -> dict[str, Any]:
    """What the record has of a profile."""
    return {"profiles": list(active.names), "mode": mode(active)}


def _parse(content: dict[str, Any]) -> ActiveProfile:
    names = content["profiles"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("profiles is not a list of names")
    if content["mode"] not in (MANUAL, AUTOMATIC):
        raise ValueError(f"mode is '{content['mode']}'")
    return ActiveProfile(tuple(names), content["mode"] == AUTOMATIC)


def remember(before: ActiveProfile, profiles: InstalledProfiles) -> None:
    """Record a profile that is to be returned to, unless it is one of ours itself.

    What cannot be read or written stops nobody, and is said.
    """
    try:
        record = record_file(profiles.system)
        kept = replace(before, post_loaded="")
        if record.load() != kept and not any(map(profiles.uses, before.all)):
            record.save(content(kept))
    except (OSError, OutsideRootError) as error:
        say_not_recorded(error)


def say_not_recorded(error: OSError | OutsideRootError) -> None:
    """Log that `disable` will not know what was active before, and why."""
    log.warning(
        "the profile that is active now is not recorded, so `tuned-virt disable` does not return"
        " to it: %s",
        error,
    )


def returns_to(
    active: ActiveProfile, off: Collection[str], previous: ActiveProfile | None
) -> ActiveProfile:
    """What is active once some profiles are off: those before them, and those beside them stay."""
    post_loaded = "" if active.post_loaded in off else active.post_loaded
    places = [place for place, name in enumerate(active.names) if name in off]
    if not places:
        return replace(active, post_loaded=post_loaded)
    known = previous or ActiveProfile()
    kept = [name for name in active.names if name not in off]
    back = [name for name in known.names if name not in kept]
    names = (*kept[: places[0]], *back, *kept[places[0] :])
    return ActiveProfile(names, known.automatic and set(kept) <= set(known.names), post_loaded)
