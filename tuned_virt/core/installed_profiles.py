# SPDX-License-Identifier: GPL-2.0-or-later
"""The profiles below a root, found and included as TuneD's loader does it, without TuneD."""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping

import tuned_virt
from tuned_virt.core import profile_dirs
from tuned_virt.core.system_root import OutsideRootError, SystemRoot
from tuned_virt.frozen_dataclasses import dataclass, field

OURS = frozenset(
    {
        "virtual-host-plus",
        "virtual-guest-plus",
        "virt-plus-host",
        "virt-plus-guest",
        "virt-plus-host-background-bytes",
        "virt-plus-host-dirty-bytes",
        "virt-plus-guest-background-bytes",
        "virt-plus-guest-dirty-bytes",
        "virt-plus-boot",
        "virt-plus-power-balanced",
        "virt-plus-power-keep",
        "virt-plus-read-ahead-keep",
    }
)

OLD_FOLDERS = ("/usr/lib/tuned", "/etc/tuned")
NEW_FOLDERS = ("/usr/lib/tuned/profiles", "/etc/tuned/profiles")
"""Where TuneD looks for profiles unless tuned-main.conf says: the later folder wins."""

STOCK = "balanced"
"""A profile that every TuneD has; it shows which folders this one uses."""

NAME = re.compile(r"[a-zA-Z0-9_.-]+")
"""TuneD silently drops a name that has anything else."""

CALL = re.compile(r"\$\{[^{}]*\}")
UNKNOWN = "\0"
"""Stands for a variable or a call in an include, which only TuneD can expand."""


@functools.lru_cache(maxsize=1)
def our_plugins() -> frozenset[str]:
    """Names of the plugins of tuned-virt-plus; none of them is imported."""
    folder = os.path.join(os.path.dirname(tuned_virt.__file__), "plugins")
    names = (os.path.splitext(name)[0] for name in os.listdir(folder))
    return frozenset(name for name in names if not name.startswith("_"))


@dataclass(frozen=True)
class LoadedProfile:
    """A profile as one of a chain of includes.

    plugins     of its sections
    options     of each section, as they are written
    includes    names, `-` before one that may be missing
    wrong       why TuneD cannot load it, "" where it can
    """

    name: str
    plugins: frozenset[str] = frozenset()
    includes: tuple[str, ...] = ()
    wrong: str = ""
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def says(self, section: str, option: str) -> str | None:
        """What it says for an option of a section, None where it does not."""
        return self.options.get(section, {}).get(option)

    def sets(self, options: Collection[str]) -> Iterator[tuple[str, str, str]]:
        """Section, option and text of those that it sets."""
        for section, texts in self.options.items():
            yield from ((section, name, text) for name, text in texts.items() if name in options)


@dataclass
class InstalledProfiles:
    """All that TuneD can load below a root, or from the folders `at`."""

    system: SystemRoot = field(default_factory=SystemRoot)
    at: tuple[str, ...] = ()

    def folders(self) -> list[str]:
        """Folders of profiles, the one that wins last."""
        if self.at:
            return list(self.at)
        named = profile_dirs.named(self.system.text(profile_dirs.MAIN))
        if named:
            return named
        new = os.path.exists(self.system.path(f"{NEW_FOLDERS[0]}/{STOCK}/tuned.conf"))
        return list(NEW_FOLDERS if new else OLD_FOLDERS)

    def file(self, name: str, but: Collection[str] = ()) -> str | None:
        """A profile's tuned.conf, other than these; None where there is none. Raises OSError."""
        if not NAME.fullmatch(name) or name.startswith("."):
            return None
        for folder in reversed(self.folders()):
            file = self.system.path(f"{folder}/{name}/tuned.conf")
            if file not in but and _is_file(file):
                return file
        return None

    def beside(self, name: str, file: str) -> str | None:
        """A file in a profile's folder, None where there is none."""
        profile = self.file(name)
        found = os.path.join(os.path.dirname(profile), file) if profile else ""
        return found if os.path.isfile(found) else None

    def using(self, file: str, names: Collection[str]) -> set[str]:
        """Those of a settings file's names that profiles use as ${name}; none unless one of these
        has the file as `include=` in its section [variables]."""
        try:
            texts = list(self._texts())
        except (OSError, OutsideRootError):
            return set()
        included = rf"^[ \t]*include[ \t]*=[ \t]*{re.escape(file)}[ \t]*$"
        if not any(re.search(included, text, re.MULTILINE) for text in texts):
            return set()
        return {name for text in texts for name in names if f"${{{name}}}" in text}

    def _texts(self) -> Iterator[str]:
        for folder in map(self.system.path, self.folders()):
            for file in glob.glob(os.path.join(glob.escape(folder), "*/tuned.conf")):
                with contextlib.suppress(OSError), open(file, errors="replace") as opened:
                    yield opened.read()

    def uses(self, name: str, wanted: Collection[str] = ()) -> bool:
        """Whether a profile is, or includes, one of these; if none is named, anything of ours."""
        if name in (wanted or OURS):
            return True
        return any(
            one.name in (wanted or OURS) or (not wanted and one.plugins & our_plugins())
            for one in self.chain(name)
        )

    def plugins(self, name: str) -> set[str]:
        """Plugins of a profile and all that it includes."""
        return {plugin for one in self.chain(name) for plugin in one.plugins}

    def wrong(self, name: str) -> str:
        """Why TuneD cannot load a profile, in its whole chain of includes; "" where it can."""
        return next((one.wrong for one in self.chain(name) if one.wrong), "")

    def chain(self, name: str, without: Collection[str] = ()) -> Iterator[LoadedProfile]:
        """A profile and all that it includes, but for some and what those include. A file that
        includes its own name means the same profile of an earlier folder, as for TuneD. Raises
        OSError."""
        todo: list[tuple[str, str]] = [(name, "")]
        seen: list[str] = []
        while todo:
            wanted, by = todo.pop(0)
            current, optional = wanted.lstrip("-"), wanted.startswith("-")
            if current in without:
                continue
            file = self.file(current, seen)
            if file is not None:
                seen.append(file)
                loaded = _loaded(current, file, _version(file))
                yield loaded
                todo += [(one, current) for one in loaded.includes if UNKNOWN not in one]
            elif not optional and self.file(current) is None:
                yield LoadedProfile(current, wrong=self._missing(current, by))

    def _missing(self, name: str, by: str) -> str:
        included = f", which '{by}' includes," if by else ""
        folders = " or ".join(self.folders())
        return f"there is no profile '{name}'{included} in {folders} of {self.system.root}"


def _is_file(path: str) -> bool:
    """Whether a file is there. Raises OSError where that cannot be told."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _version(file: str) -> tuple[int, ...]:
    found = os.stat(file)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@functools.lru_cache(maxsize=64)
def _loaded(name: str, file: str, version: tuple[int, ...]) -> LoadedProfile:
    """A profile, parsed once as long as its file's version stays."""
    import configparser  # none of the commands that start fast needs it

    parsed = configparser.ConfigParser(
        delimiters=("=",), inline_comment_prefixes=("#",), strict=False, interpolation=None
    )
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        with open(file) as opened:
            parsed.read_file(opened, file)
    except (configparser.Error, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        return LoadedProfile(name, wrong=f"TuneD cannot read the profile '{name}': {reason}")
    plugins = {parsed.get(section, "type", fallback=section) for section in parsed.sections()}
    text = _without_calls(parsed.get("main", "include", fallback=""))
    includes = tuple(word for word in re.split(r"\s*[,;]\s*", text.strip()) if word)
    options = {section: dict(parsed.items(section)) for section in parsed.sections()}
    return LoadedProfile(name, frozenset(plugins), includes, options=options)


def _without_calls(text: str) -> str:
    """The text with ${…} and ${f:…:${…}} replaced: what they contain is no list of profiles."""
    before = None
    while text != before:
        before, text = text, CALL.sub(UNKNOWN, text)
    return text
