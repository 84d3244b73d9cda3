# SPDX-License-Identifier: GPL-2.0-or-later
"""Sections of TuneD's own plugins that set the same kernel files as one of ours, otherwise.

Both are applied, and only one can hold: verify fails for the other until one of them goes.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tuned_virt.core.engine import Finding, Result
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.tuned_api import stock_values

THP = "/sys/kernel/mm/transparent_hugepage"

VM_FILES: Mapping[str, str] = {
    "transparent_hugepages": f"{THP}/enabled",
    "transparent_hugepage": f"{THP}/enabled",
    "transparent_hugepage.defrag": f"{THP}/defrag",
}
"""Options of TuneD's plugin vm."""


@dataclass(frozen=True)
class StockFile:
    """A kernel file that an option of TuneD's own plugins sets."""

    section: str
    option: str
    path: str
    value: str


def findings(ours: Mapping[str, str], section: str) -> list[Finding]:
    """Notes for what our section sets, by path ("" where an algorithm decides the value)."""
    manager = stock_values.caller("tuned.units.manager")
    if manager is None or not ours:
        return []
    return [Finding(Result.NOTE, text) for text in remarks(ours, section, files(manager.instances))]


def remarks(ours: Mapping[str, str], section: str, stock: Iterable[StockFile]) -> Iterator[str]:
    """The same in words. Pure."""
    for one in stock:
        wanted = ours.get(one.path)
        if wanted is not None and wanted != one.value:
            to = f"to '{wanted}'" if wanted else "itself"
            yield (
                f"[{one.section}] sets {one.path} to '{one.value}', and [{section}] sets it {to}:"
                f" only one can hold; leave it out of [{section}], or put drop={one.option} into"
                f" [{one.section}] of your profile"
            )


def files(instances: Iterable[Any]) -> Iterator[StockFile]:
    """What the instances of TuneD's plugins for kernel files set."""
    for instance in instances:
        if not stock_values.is_ours(instance):
            for option, text in list(instance.options.items()):
                value = instance.plugin._variables.expand(text)
                for path in _paths(instance.plugin.name, option) if value else ():
                    yield StockFile(instance.name, option, path, str(value).strip().lstrip("<>"))


def _paths(plugin: str, option: str) -> list[str]:
    if plugin == "sysfs":
        return glob.glob(option)
    if plugin == "sysctl":
        return [f"/proc/sys/{option.replace('.', '/')}"]
    return [VM_FILES[option]] if plugin == "vm" and option in VM_FILES else []
