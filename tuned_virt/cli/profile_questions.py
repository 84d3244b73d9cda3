# SPDX-License-Identifier: GPL-2.0-or-later
"""What profiles ask `${f:virt_plus:…}`, answered from a settings file; errors go to TuneD's log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from tuned_virt.cli import settings_file
from tuned_virt.cli.common import CouldNot
from tuned_virt.core import profile_parts, settings
from tuned_virt.core.section_settings import SettingNames
from tuned_virt.kernel import swap
from tuned_virt.kernel.files import KernelFS
from tuned_virt.tuned_api.loading import leave_out

log = logging.getLogger("tuned")


def parts(tuning: str, file: str) -> str:
    """The profiles to include, each but the first marked as optional; "" for none.

    None for a file that cannot be read, or has an error that may concern any of these settings:
    what it asks for is not known.
    """
    try:
        profile = f"virtual-{tuning.rpartition('-')[2]}-plus"
        found = settings_file.checked(SettingNames(), profile_parts.NAMES, file, profile)
    except CouldNot as error:
        log.error("%s; TuneD's own settings are those of the stock profile", error)
        return ""
    asked = profile_parts.wanted(tuning, found.texts)
    for bad in found.told(asked.errors, {}):
        log.error("%s; the stock profile's applies", bad)
    return ",-".join(asked.names)


def value(file: str, name: str, default: str) -> str:
    """A setting, or what it is by default; swappiness=auto as this machine's swap calls for it."""
    found = settings.read(file).settings.get(name)
    text = found.value if found and found.value else default
    if (name, text) == ("swappiness", profile_parts.AUTO):
        return swap.swappiness(KernelFS(), default)
    return text


def boot(file: str) -> str:
    """The kernel's arguments for huge pages; "" with the reason in the log."""
    from tuned_virt.cli import hugepages_plan

    text, said = hugepages_plan.cmdline(file, [])
    for line in said:
        log.warning("huge pages at boot: %s", line)
    return text


QUESTIONS: Mapping[str, Callable[..., str]] = {
    "parts": parts,
    "value": value,
    "boot": boot,
    "leave_out": leave_out,
}
