# SPDX-License-Identifier: GPL-2.0-or-later
"""Recommended settings put into a settings file; the administrator's own lines stay as they are."""

from __future__ import annotations

import os
import tempfile
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from tuned_virt.cli import check_settings, settings_file, variables
from tuned_virt.cli.variables import Variable
from tuned_virt.core import settings
from tuned_virt.core.settings import Setting, SettingError
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.recommend.advice import RecommendedSetting

MARK = "# Recommended: "
MORE = "#   "
WIDTH = 118

ALL = "all"

NOTHING: Mapping[str, Setting] = {}

HEAD = """\
# SPDX-License-Identifier: GPL-2.0-or-later
# Settings of the profile {profile} (tuned-virt-plus); see man {profile}-variables.conf
"""


@dataclass(frozen=True)
class KeptLine:
    """An own line that says something else than the recommendation, and stays.

    file  where it is, "" for the settings file itself: an image's settings are own ones, too
    """

    setting: RecommendedSetting
    name: str
    value: str
    line: int
    file: str = ""


@dataclass(frozen=True)
class RefusedSetting:
    """A recommendation that does not go with the file's other lines, by check-settings."""

    setting: RecommendedSetting
    error: str


@dataclass(frozen=True)
class MergedFile:
    """A settings file's text with what was recommended.

    errors   what is wrong in the administrator's own text, which is not changed then
    added    recommended and not set before, or set otherwise and replaced
    same     set already
    """

    text: str
    added: tuple[RecommendedSetting, ...] = ()
    same: tuple[RecommendedSetting, ...] = ()
    kept: tuple[KeptLine, ...] = ()
    refused: tuple[RefusedSetting, ...] = ()
    errors: tuple[SettingError, ...] = ()


def merge(
    text: str,
    profile: str,
    wanted: Iterable[RecommendedSetting],
    replaced: Collection[str] = (),
    below: Mapping[str, Setting] = NOTHING,
) -> MergedFile:
    """`replaced` are names of settings whose own lines may be changed, or ALL; `below` is what an
    image sets where the file does not.

    Each is added only where check-settings has nothing against the result.
    """
    text = text or HEAD.format(profile=profile)
    errors = check(text, profile)
    if errors:
        return MergedFile(text, errors=errors)
    added, same, kept, refused = [], [], [], []
    for one in wanted:
        own = _own({**below, **settings.parse("", text).settings}, one)
        if own is not None and own.value == one.value and own.name == one.name:
            same.append(one)
            continue
        if own is not None and not ({one.name, ALL} & set(replaced) and own.name == one.name):
            kept.append(own)
            continue
        new = _placed(text, one)
        wrong = check(new, profile)
        if wrong:
            refused.append(RefusedSetting(one, str(wrong[0].valid)))
        else:
            text = new
            added.append(one)
    return MergedFile(text, tuple(added), tuple(same), tuple(kept), tuple(refused))


def check(text: str, profile: str) -> tuple[SettingError, ...]:
    """What check-settings says of a text. Raises CouldNot."""
    with tempfile.TemporaryDirectory(prefix="tuned-virt-") as folder:
        file = Path(folder, f"{profile}{settings_file.ENDING}")
        file.write_bytes(text.encode())
        return check_settings.check(os.fspath(file), profile).errors


def _own(known: Mapping[str, Setting], one: RecommendedSetting) -> KeptLine | None:
    """The line that sets this, or what says the same in another way; empty ones set nothing."""
    for name in (one.name, *one.rivals):
        found = known.get(name)
        if found is not None and (found.value or name == one.name):
            return KeptLine(one, name, found.value, found.line, found.file)
    return None


def _placed(text: str, one: RecommendedSetting) -> str:
    lines = _without_old_comment(variables.split(text), one.name)
    return "".join(variables.place(lines, [Variable(one.name, one.value, comments(one))]))


def comments(one: RecommendedSetting) -> tuple[str, ...]:
    """What stands above a line: what was seen, and why it calls for this."""
    told = f"{one.evidence}. {one.reason[0].upper()}{one.reason[1:]} ({one.source})."
    return tuple(
        textwrap.wrap(
            told,
            WIDTH,
            initial_indent=MARK,
            subsequent_indent=MORE,
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def _without_old_comment(lines: Sequence[str], name: str) -> list[str]:
    """Without our comment above a setting's line, which another one replaces."""
    at = max((n for n, line in enumerate(lines) if _sets(line, name)), default=None)
    if at is None:
        return list(lines)
    start = at
    while start and lines[start - 1].startswith(MORE):
        start -= 1
    if not start or not lines[start - 1].startswith(MARK):
        return list(lines)
    return [*lines[: start - 1], *lines[at:]]


def _sets(line: str, name: str) -> bool:
    return line.partition("=")[0].strip() == name
