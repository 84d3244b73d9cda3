# SPDX-License-Identifier: GPL-2.0-or-later
"""Profiles as the installed TuneD's own loader merges them, and the files that they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuned import consts, profiles
from tuned.exceptions import TunedException
from tuned.profiles.exceptions import InvalidProfileException
from tuned.utils.global_config import GlobalConfig

from tuned_virt.core.active_profile import POST_LOADED
from tuned_virt.core.profile_lines import ProfileLine, find
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.tuned_api.preview.shadow import NOT_RUN, Shadow


class CannotLoad(Exception):
    """TuneD would refuse the switch; the message is its own."""


@dataclass(frozen=True)
class MergedProfile:
    """A merged profile: TuneD's object, its variables, and paths and texts of its files in order.

    skipped   includes whose names only a program tells that a preview does not run
    """

    merged: Any
    variables: Any
    config: Any
    files: tuple[tuple[str, str], ...]
    skipped: tuple[str, ...] = ()

    def line(self, section: str, option: str = "") -> ProfileLine | None:
        """The line that sets an option of a section."""
        return find(self.files, section, option)


class _FilesLoader(profiles.Loader):  # type: ignore[misc]
    """TuneD's, which also tells the files that it has merged, in the order of merging."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.files: list[str] = []
        self.skipped: list[str] = []

    def _load_profile(
        self, profile_names: Sequence[str], profiles: list[Any], processed_files: list[str]
    ) -> None:
        """A profile is merged after all that it includes, so its file is noted afterwards."""
        for name in profile_names:
            if NOT_RUN.search(name):
                self.skipped.append(name.lstrip("-"))
                continue
            before = len(processed_files)
            super()._load_profile([name], profiles, processed_files)
            self.files += processed_files[before : before + 1]


def load(names: Sequence[str], shadow: Shadow, after: MergedProfile | None = None) -> MergedProfile:
    """Load and merge profiles, and the post-loaded one. Raises CannotLoad.

    A daemon keeps the variables of the profile that it had loaded before (TuneD issue 76).
    """
    try:
        with shadow.in_force(), shadow.acting(""):
            config = GlobalConfig()
            variables = after.variables if after else profiles.variables.Variables()
            locator = profiles.Locator(_folders(config))
            loader = _FilesLoader(locator, profiles.Factory(), profiles.Merger(), config, variables)
            merged = loader.load([*names, *_post_loaded(names)])
    except (InvalidProfileException, TunedException) as error:
        raise CannotLoad(str(error)) from error
    texts = tuple((file, _text(file)) for file in loader.files)
    return MergedProfile(merged, variables, config, texts, tuple(loader.skipped))


def _folders(config: Any) -> list[str]:
    """The folders of profiles; up to TuneD 2.23 they are not configurable."""
    if hasattr(consts, "CFG_PROFILE_DIRS"):
        return list(config.get_list(consts.CFG_PROFILE_DIRS, consts.CFG_DEF_PROFILE_DIRS))
    return list(consts.LOAD_DIRECTORIES)


def _post_loaded(names: Sequence[str]) -> list[str]:
    try:
        with open(POST_LOADED, encoding="utf-8", errors="replace") as file:
            return [name for name in file.read().split() if name not in names]
    except OSError:
        return []


def _text(file: str) -> str:
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            return opened.read()
    except OSError:
        return ""
