# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings for TuneD's own plugins that did not come through, and which profile or file has won."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from tuned_virt.core import profile_dirs, sysctl_files
from tuned_virt.core.active_profile import ActiveProfile
from tuned_virt.core.installed_profiles import OURS, InstalledProfiles, LoadedProfile
from tuned_virt.core.options import Modifier, Number, OptionError
from tuned_virt.core.profile_lines import ProfileLine
from tuned_virt.core.section_settings import SectionSettings
from tuned_virt.core.settings import Setting
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel.files import KernelFS

ANY = Number(-(2**62), 2**62)

SECTION_WORDS = ("replace", "enabled", "drop", "devices", "uname_regex", "cpuinfo_regex")
"""What a section says of itself, and so of every other profile's section of the same name."""


@dataclass(frozen=True)
class TunedSetting:
    """Where a setting ends in the kernel, and the options of TuneD's plugins that write there."""

    path: str
    options: tuple[str, ...]
    at_least: bool = False

    @property
    def sysctl(self) -> str:
        """Its name as profiles and sysctl files have it."""
        return self.path.partition("/proc/sys/")[2].replace("/", ".")


@dataclass(frozen=True)
class TunedChoice:
    """A setting that decides which options TuneD's plugins have, by plugin.

    parts  by the setting's word the profile that has these options, "" for none of them
    """

    options: Mapping[str, tuple[str, ...]]
    parts: Mapping[str, str]


@dataclass(frozen=True)
class AppliedSection:
    """A section of the merged profile: its plugin, and its options as they are written."""

    plugin: str
    options: Mapping[str, str]


@dataclass(frozen=True)
class Overridden:
    """A line of verify; `fails` unless what it says is only to be known."""

    text: str
    fails: bool = True


@dataclass(frozen=True)
class ProfilesInForce:
    """What is active: profiles as installed, by name, and the merged sections that are applied."""

    fs: KernelFS
    installed: InstalledProfiles
    active: ActiveProfile
    sections: Mapping[str, AppliedSection]

    def has(self, section: str, option: str, text: str) -> bool:
        """Whether that is what the merged section says."""
        there = self.sections.get(section)
        return there is not None and there.options.get(option) == text

    def others(self) -> list[LoadedProfile]:
        """Profiles that are active beside ours: neither ours nor those that only ours include."""
        installed = self.installed
        reached = {one.name: one for name in self.active.all for one in installed.chain(name, OURS)}
        return list(reached.values())

    def stock(self) -> dict[tuple[str, str], str]:
        """What the stock profiles below ours say, by section and option."""
        found: dict[tuple[str, str], str] = {}
        for name in self.active.all:
            ours = {one.name for one in self.installed.chain(name)} & OURS
            below = {include for one in ours for include in self._includes(one)}
            for profile in (one for include in below for one in self.installed.chain(include)):
                for section, texts in profile.options.items():
                    for option, text in texts.items():
                        found.setdefault((section, option), text)
        return found

    def _includes(self, name: str) -> set[str]:
        first = next(iter(self.installed.chain(name)))
        return {one for one in first.includes if not one.startswith("-")} - OURS

    def part(self, name: str) -> dict[tuple[str, str], str]:
        """What a part of our profiles says, by section and option."""
        first = next(iter(self.installed.chain(name)))
        return {(at, option): text for at, o in first.options.items() for option, text in o.items()}


def overridden(
    found: SectionSettings,
    settings: Mapping[str, TunedSetting],
    choices: Mapping[str, TunedChoice],
    force: ProfilesInForce,
) -> Iterator[Overridden]:
    """Lines of the settings file that do not hold, with whose fault it is."""
    for name, setting in settings.items():
        line, now = found.lines.get(name), force.fs.read_optional(setting.path)
        if line is not None and now is not None and not _holds(line.value, now, setting.at_least):
            for why in _rivals(found, name, settings) or _winners(setting, now, force):
                yield Overridden(_text(found, line, now, why))
    for name, choice in choices.items():
        line = found.lines.get(name)
        if line is not None and line.value in choice.parts:
            for option, text, why in _chosen(choice, line.value, force):
                wins = f"{option}={text}" if text else f"no {option}"
                if line.value != KEEP or not why:
                    yield Overridden(_text(found, line, wins, why or NOT_LEFT_OUT))
                else:
                    where = f"{line.file or found.file}: line {line.line}"
                    yield Overridden(f"'{name}': {where}: {why}", False)


STOCK, KEEP = "stock", "keep"
"""Words of choices: as the stock profiles have it; nothing of theirs, so that others' counts."""

NOT_LEFT_OUT = "the stock profile's is not left out; TuneD's log says why"


def _text(found: SectionSettings, line: Setting, now: str, why: str) -> str:
    where = f"{line.file or found.file}: line {line.line}"
    return f"'{line.name}' = '{now}', expected '{line.value}': {where} does not hold: {why}"


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


# --- sysctls --------------------------------------------------------------------------------------


def _rivals(
    found: SectionSettings, name: str, settings: Mapping[str, TunedSetting]
) -> Iterable[str]:
    """Lines of the same file that set the other one of a ratio and its bytes."""
    return [
        f"line {line.line} sets {line.name}={line.value}, and the kernel has only one of the two"
        for line in found.lines.values()
        if line.name != name
        and line.value
        and line.name in settings
        and settings[line.name].options == settings[name].options
    ]


def _winners(setting: TunedSetting, now: str, force: ProfilesInForce) -> Iterable[str]:
    """Who has set a sysctl, or what sets the same in another unit; nobody where TuneD's own verify
    says that it has changed since."""
    own = setting.sysctl
    line = sysctl_files.last_line(force.fs, [one for one in setting.options if "." in one])
    if line is not None and _is_in_force(line, own, now):
        again = profile_dirs.reapplies_sysctls(force.fs.read_optional(profile_dirs.MAIN) or "")
        return [f"{line} sets {line.text}{REAPPLIED if again else APPLIED_SINCE}"]
    others = force.others()
    told = [
        _sets(one, section, option, text)
        for one in others
        for section, option, text in one.sets(setting.options)
        if force.has(section, option, text)
    ]
    if told or any(own in section.options for section in force.sections.values()):
        return told
    return list(_spoilers(others, "sysctl")) or [NOT_APPLIED.format(option=own)]


REAPPLIED = (
    ", and TuneD applies it after every profile; remove that line, or set reapply_sysctl=0 in"
    f" {profile_dirs.MAIN}"
)
APPLIED_SINCE = ", which was applied after the profile; activate the profile again"
NOT_APPLIED = "no section of the active profile sets {option}; TuneD's log says why"


def _is_in_force(line: ProfileLine, own: str, now: str) -> bool:
    """Whether a line explains a value: of a ratio and its bytes the one that is not set is 0."""
    same = line.text.partition("=")[0].strip().replace("/", ".") == own
    return sysctl_files.value(line) == now if same else now == "0"


def _sets(profile: LoadedProfile, section: str, option: str, text: str) -> str:
    return f"the profile {profile.name} sets {option}={text} in [{section}]"


def _spoilers(others: Iterable[LoadedProfile], section: str) -> Iterator[str]:
    for profile in others:
        for word in SECTION_WORDS:
            text = profile.says(section, word)
            if text is not None:
                yield f"the profile {profile.name} has {word}={text} in [{section}]"


# --- choices --------------------------------------------------------------------------------------


def _chosen(
    choice: TunedChoice, word: str, force: ProfilesInForce
) -> Iterator[tuple[str, str, str]]:
    """Options that are not as a word asks: option, its text ("" for none), and whose it is."""
    part = choice.parts[word]
    wanted = force.stock() if word == STOCK else force.part(part) if part else {}
    others = force.others()
    for plugin, options in choice.options.items():
        for option in options:
            text = wanted.get((plugin, option), "")
            if word == STOCK and not text:
                continue
            there = _there(force.sections, plugin, option)
            for section, now in there:
                if now != text:
                    told = [one for one in others if one.says(section, option) == now]
                    why = _sets(told[-1], section, option, now) if told else ""
                    yield option, now, why
            if text and not there:
                spoiled = next(_spoilers(others, plugin), NOT_APPLIED.format(option=option))
                yield option, "", spoiled


def _there(
    sections: Mapping[str, AppliedSection], plugin: str, option: str
) -> Collection[tuple[str, str]]:
    """Sections of a plugin that have an option, each with its text."""
    return [
        (name, one.options[option])
        for name, one in sections.items()
        if one.plugin == plugin and one.options.get(option)
    ]
