# SPDX-License-Identifier: GPL-2.0-or-later
"""What profiles ask `${f:virt_plus:…}`, answered from a settings file; errors go to TuneD's log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

from tuned_virt.cli import variables
from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.variables import SetVariable
from tuned_virt.core import profile_parts

log = logging.getLogger("tuned")


def parts(tuning: str, file: str) -> str:
    """The profiles to include, each but the first marked as optional; "" for none.

    None for a file that cannot be read: what it asks for is not known.
    """
    try:
        settings = _settings(file)
    except CouldNot as error:
        log.error("%s; TuneD's own settings are those of the stock profile", error)
        return ""
    found = profile_parts.wanted(tuning, {name: one.value for name, one in settings.items()})
    for bad in found.errors:
        line = settings[bad.option].line
        said = f"{bad.option}={bad.value} is not valid: {bad.valid}"
        log.error("%s: line %s: %s; the stock profile's applies", file, line, said)
    return ",-".join(found.names)


def value(file: str, name: str, default: str) -> str:
    """A setting, or what it is by default."""
    try:
        found = _settings(file).get(name)
    except CouldNot:
        return default
    return found.value.strip() if found and found.value.strip() else default


def boot(file: str) -> str:
    """The kernel's arguments for huge pages; "" with the reason in the log."""
    from tuned_virt.cli import hugepages_plan

    text, said = hugepages_plan.cmdline(Path(file), [])
    for line in said:
        log.warning("huge pages at boot: %s", line)
    return text


QUESTIONS: Mapping[str, Callable[..., str]] = {"parts": parts, "value": value, "boot": boot}


def _settings(file: str) -> Mapping[str, SetVariable]:
    """What a file sets, by name; one that is not there sets nothing. Raises CouldNot."""
    try:
        found = Path(file).stat()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CouldNot(f"{file}: {error.strerror}") from error
    return _read(file, (found.st_ino, found.st_size, found.st_mtime_ns))


@lru_cache(maxsize=4)
def _read(file: str, _version: tuple[int, ...]) -> Mapping[str, SetVariable]:
    return {one.name: one for one in variables.read(Path(file))}
