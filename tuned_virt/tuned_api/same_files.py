# SPDX-License-Identifier: GPL-2.0-or-later
"""Sections of TuneD's own plugins that set the same kernel files as one of ours, otherwise.

Both are applied, and only one can hold: verify fails for the other until one of them goes.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tuned_virt.core.engine import Finding, Result
from tuned_virt.core.stock_files import pattern
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.tuned_api import stock_values

EITHER = (
    ("/proc/sys/vm/dirty_background_ratio", "/proc/sys/vm/dirty_background_bytes"),
    ("/proc/sys/vm/dirty_ratio", "/proc/sys/vm/dirty_bytes"),
)
"""Files of which the kernel keeps the one that is written last, and sets the other to 0."""


@dataclass(frozen=True)
class StockFile:
    """A kernel file that an option of TuneD's own plugins sets."""

    section: str
    option: str
    path: str
    value: str


def findings(ours: Mapping[str, str], instance: Any) -> list[Finding]:
    """What verify says of the files that our section sets, by path ("" where an algorithm decides
    the value); and once a verify of those of which TuneD's own sections set two that exclude each
    other."""
    manager = stock_values.caller("tuned.units.manager")
    if manager is None:
        return []
    once = stock_values.speaks_for_all(manager, instance)
    stock = [*files(manager.instances)] if once or ours else []
    found = [Finding(Result.FAILED, text) for text in (exclusive(stock) if once else ())]
    return found + [Finding(Result.NOTE, text) for text in remarks(ours, instance.name, stock)]


def exclusive(stock: Iterable[StockFile]) -> Iterator[str]:
    """Sections that set a percentage and bytes of write-back, or one of them twice. Pure."""
    known = [*stock]
    for group in EITHER:
        found = [one for one in known if one.path in group and one.value != "0"]
        if len({(one.path, one.value) for one in found}) > 1:
            sets = " and ".join(f"[{one.section}] {one.option}={one.value}" for one in found)
            loser = next((one for one in found if one.section == "sysctl"), found[0])
            yield (
                f"{sets} exclude each other: the kernel keeps what is written last; set"
                f" {group[1].rpartition('/')[2]} in the settings file instead, or put"
                f" drop={loser.option} into [{loser.section}] of your profile"
            )


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
    path = pattern(plugin, option)
    return glob.glob(path) if plugin == "sysfs" else [path] if path else []
