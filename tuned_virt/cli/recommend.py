# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt recommend: print the settings that serve this host and its guests, or write them."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tuned_virt.cli import (
    json_output,
    planning_input,
    recommend_file,
    recommend_input,
    settings_file,
)
from tuned_virt.cli import variables as settings_lines
from tuned_virt.cli.common import FINE, TO_REPORT, CouldNot
from tuned_virt.cli.planning_input import text_of
from tuned_virt.cli.recommend_file import MergedFile
from tuned_virt.core import settings
from tuned_virt.core.settings import Setting
from tuned_virt.model.host_facts import NotKnown
from tuned_virt.recommend.decide import Recommendations, decide
from tuned_virt.recommend.situation import Situation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    planning_input.add_sources(parser)
    parser.add_argument(
        "--snapshot", metavar="FILE", help="a host with its guests, by tuned-virt snapshot"
    )
    parser.add_argument(
        "--settings",
        metavar="FILE",
        type=Path,
        help="the settings file whose lines are kept (default: this machine's, in /etc/tuned)",
    )
    parser.add_argument(
        "--write", action="store_true", help="write the settings file, and show the changes"
    )
    parser.add_argument(
        "--replace",
        metavar="SETTING",
        nargs="+",
        action="extend",
        default=[],
        help="own lines that may be replaced where another value is recommended, or all",
    )
    json_output.add_option(parser)


def run(options: argparse.Namespace) -> int:
    """Look, decide, print or write. Raises CouldNot."""
    elsewhere = bool(options.host or options.guest or options.snapshot)
    if options.write and elsewhere:
        raise CouldNot("--write is for this machine: with files redirect the output instead")
    made = _decided(recommend_input.gather(options.host, options.guest, options.snapshot))
    file = options.settings or _machines_file(made.profile)
    before = "" if elsewhere and not options.settings else _text(file)
    below = {} if elsewhere else _below(file)
    merged = recommend_file.merge(before, made.profile, made.settings, options.replace, below)
    if merged.errors:
        raise CouldNot("\n".join(_in_file(file, str(error)) for error in merged.errors))
    written = bool(options.write and merged.added)
    if written:
        _write(file, merged.text)
    if options.json:
        json_output.emit("recommend", _content(file, made, merged, written))
    else:
        _show(options, file, made, merged, before)
    served = not (merged.kept or merged.refused or any(one.short for one in made.left))
    return FINE if served else TO_REPORT


def _decided(seen: Situation) -> Recommendations:
    try:
        return decide(seen)
    except NotKnown as error:
        raise CouldNot(str(error)) from error


def _machines_file(profile: str) -> Path:
    return Path(settings_file.FOLDER, f"{profile}{settings_file.ENDING}")


def _text(file: Path) -> str:
    return text_of(file) if os.path.lexists(file) else ""


def _below(file: Path) -> Mapping[str, Setting]:
    """What an image sets where the file does not. Raises CouldNot."""
    images = [one for one in settings.layers(os.fspath(file)) if one != os.fspath(file)]
    if not images:
        return {}
    found = settings.layered([settings.parse(one, text_of(Path(one))) for one in images])
    if found.errors:
        raise CouldNot("\n".join(map(str, found.errors)))
    return found.settings


def _in_file(file: Path, error: str) -> str:
    """check-settings' words, which name the copy that was checked."""
    return f"{file}: {error.partition(': ')[2]}"


def _write(file: Path, text: str) -> None:
    try:
        settings_lines.replace_file(file, text)
    except OSError as error:
        raise CouldNot(f"cannot write {file}: {error.strerror}; nothing is changed") from error


def _show(
    options: argparse.Namespace, file: Path, made: Recommendations, merged: MergedFile, before: str
) -> None:
    """The settings file on standard output, or what was changed in it; the rest beside it."""
    if options.write and merged.added:
        old, new = map(settings_lines.split, (before, merged.text))
        print("".join(difflib.unified_diff(old, new, str(file), "recommended")), end="")
        print(f"{file} is written; next: tuned-virt preview {made.profile}")
    elif options.write:
        print(f"nothing to change in {file}")
    else:
        print(merged.text, end="" if merged.text.endswith("\n") else "\n")
    sys.stdout.flush()
    for line in _told(made, merged):
        print(line, file=sys.stderr)


def _told(made: Recommendations, merged: MergedFile) -> Iterator[str]:
    if made.nothing:
        yield f"nothing: {made.nothing}"
        return
    for one in merged.added:
        yield f"recommended: {one.name}={one.value}: {one.evidence}"
    for one in merged.same:
        yield f"set already: {one.name}={one.value}: {one.evidence}"
    if not made.settings:
        yield f"recommended: nothing; the defaults of {made.profile} serve this machine"
    for kept in merged.kept:
        want = f"{kept.setting.name}={kept.setting.value}"
        line = f"{kept.file}: line {kept.line}" if kept.file else f"line {kept.line}"
        yield (
            f"differs: {line} has {kept.name}={kept.value}, which stays; recommended is"
            f" {want}: {kept.setting.evidence}; --replace {kept.setting.name} takes it"
            if kept.name == kept.setting.name
            else f"differs: {line} has {kept.name}={kept.value}, which stays;"
            f" recommended instead of it is {want}: {kept.setting.evidence}"
        )
    for refused in merged.refused:
        yield (
            f"refused: {refused.setting.name}={refused.setting.value} does not go with the other"
            f" lines: {refused.error}"
        )
    for step in made.steps:
        yield f"step: {step.command}: {step.why} ({step.source})"
    for left in made.left:
        yield f"{'not served' if left.short else 'left'}: {left.topic}: {left.why}"


def _content(
    file: Path, made: Recommendations, merged: MergedFile, written: bool
) -> dict[str, Any]:
    states = {one: "added" for one in merged.added}
    states.update(dict.fromkeys(merged.same, "set"))
    states.update((one.setting, "kept") for one in merged.kept)
    states.update((one.setting, "refused") for one in merged.refused)
    own = {kept.setting: kept for kept in merged.kept}
    errors = {refused.setting: refused.error for refused in merged.refused}
    return {
        "profile": made.profile,
        "file": str(file),
        "changed": written,
        "nothing": made.nothing or None,
        "settings": [
            {
                "setting": one.name,
                "after": one.value,
                "state": state,
                "evidence": one.evidence,
                "why": one.reason,
                "source": one.source,
                "own": f"{own[one].name}={own[one].value}" if one in own else None,
                "line": own[one].line if one in own and not own[one].file else None,
                "error": errors.get(one),
            }
            for one, state in states.items()
        ],
        "left": [
            {"setting": one.topic, "why": one.why, "served": not one.short} for one in made.left
        ],
        "steps": [
            {"command": one.command, "why": one.why, "source": one.source} for one in made.steps
        ],
        "text": merged.text,
    }
