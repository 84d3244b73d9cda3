# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings for TuneD's own plugins that another profile's section has overridden, and whose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tuned_virt.core.active_profile import ActiveProfile
from tuned_virt.core.installed_profiles import OURS, InstalledProfiles, LoadedProfile
from tuned_virt.core.options import Modifier, Number, OptionError
from tuned_virt.core.section_settings import SectionSettings
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel.files import KernelFS

ANY = Number(-(2**31), 2**31)


@dataclass(frozen=True)
class TunedSetting:
    """Where a setting ends in the kernel, and the options of TuneD's plugins that write there."""

    path: str
    options: tuple[str, ...]
    at_least: bool = False


def overridden(
    found: SectionSettings,
    settings: Mapping[str, TunedSetting],
    fs: KernelFS,
    profiles: InstalledProfiles,
    active: ActiveProfile,
) -> Iterator[str]:
    """Lines of the settings file that do not hold because another profile sets the same."""
    others: list[LoadedProfile] | None = None
    for name, setting in settings.items():
        line, now = found.lines.get(name), fs.read_optional(setting.path)
        if line is None or now is None or _holds(line.value, now, setting.at_least):
            continue
        others = _others(profiles, active) if others is None else others
        for profile in others:
            for section, option, text in profile.sets(setting.options):
                yield (
                    f"{found.file}: line {line.line}: '{name}={line.value}' does not hold:"
                    f" {setting.path} is {now}; the profile {profile.name} sets"
                    f" {option}={text} in [{section}]"
                )


def _holds(text: str, now: str, at_least: bool) -> bool:
    """Whether a value is in force; what is no number is another's to say."""
    try:
        wanted = ANY.parse("", text)
        least = at_least or wanted.modifier is Modifier.AT_LEAST
        if least:
            return int(now) >= wanted.value
        return int(now) <= wanted.value if wanted.modifier else int(now) == wanted.value
    except (OptionError, ValueError):
        return True


def _others(profiles: InstalledProfiles, active: ActiveProfile) -> list[LoadedProfile]:
    """Profiles that are active beside ours: neither ours nor those that ours include."""
    below = {one.name for name in OURS if profiles.file(name) for one in profiles.chain(name)}
    loaded = {one.name: one for name in active.all for one in profiles.chain(name)}
    return [one for one in loaded.values() if one.name not in below]
