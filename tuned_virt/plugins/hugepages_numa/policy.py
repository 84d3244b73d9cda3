# SPDX-License-Identifier: GPL-2.0-or-later
"""What a profile may ask of huge pages: the options, and the policy that they make.

Sources: the guide's chapter 8.3.3; the kernel's Documentation/admin-guide/mm/hugetlbpage.rst and
transhuge.rst.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TypeVar

from tuned_virt.core import options as opt
from tuned_virt.core.options import BadOptions, Number, OneOf, OptionError, OptionSpec
from tuned_virt.core.section_settings import SettingNames
from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel import cpuset
from tuned_virt.plugins.hugepages_numa import mounts
from tuned_virt.plugins.hugepages_numa.pools import size_of
from tuned_virt.plugins.hugepages_numa.setting_types import HugetlbMount

T = TypeVar("T")

SIZES = ("64K", "1M", "2M", "4M", "8M", "16M", "32M", "256M", "512M", "1G", "2G", "16G")
"""Sizes of all architectures' kernels (arch/*/mm/hugetlbpage.c); each machine has a few of them."""

GUESTS = "guests"
ALL = "all"

PAGES_VALID = (
    "NODE:PAGES or NODE:PERCENT% for one node or a range of them, all:… for each node with memory,"
    " separated by commas (0:512,1:25%), or guests"
)
RESERVE_VALID = "MiB on each node (4096), or percent of its memory (10%)"
HEADROOM_VALID = "MiB on each node (2048), or percent of what guests request (20%)"

TRANSPARENT: Mapping[str, OneOf | Number] = {
    "transparent_hugepages": OneOf(("always", "madvise", "never")),
    "defrag": OneOf(("always", "defer", "defer+madvise", "madvise", "never")),
    "shmem_enabled": OneOf(("always", "within_size", "advise", "never", "deny", "force")),
    "khugepaged_defrag": OneOf(("0", "1")),
    "khugepaged_pages_to_scan": Number(1, 2**31 - 1, "pages per scan"),
    "khugepaged_scan_sleep_millisecs": Number(0, 3_600_000, "ms"),
    "khugepaged_alloc_sleep_millisecs": Number(0, 3_600_000, "ms"),
    "khugepaged_max_ptes_none": Number(0, 65535, "empty pages in a huge page"),
    "khugepaged_max_ptes_swap": Number(0, 65535, "swapped pages in a huge page"),
    "khugepaged_max_ptes_shared": Number(0, 65535, "shared pages in a huge page"),
}
"""Options of transparent huge pages, and what each takes."""

TRANSPARENT_HINTS: Mapping[str, str] = {
    "transparent_hugepages": "which memory gets transparent huge pages by default",
    "defrag": "when a page fault waits for memory to be compacted",
    "shmem_enabled": "the same for shared memory (memfd), as guests with vhost-user have it",
    "khugepaged_defrag": "1: khugepaged compacts memory to make huge pages",
    "khugepaged_pages_to_scan": "pages that khugepaged scans before it sleeps",
    "khugepaged_scan_sleep_millisecs": "sleep of khugepaged between scans in ms",
    "khugepaged_alloc_sleep_millisecs": "sleep of khugepaged after a failed allocation in ms",
    "khugepaged_max_ptes_none": "maximum of empty pages that it fills up to make a huge page",
    "khugepaged_max_ptes_swap": "maximum of pages that it reads from swap to make one",
    "khugepaged_max_ptes_shared": "maximum of shared pages in one",
}


NAMES = SettingNames(
    "hugepages_",
    {
        **{f"pages_{size}": f"hugepages_{size}" for size in SIZES},
        "transparent_hugepages": "thp",
        "defrag": "thp_defrag",
        "shmem_enabled": "thp_shmem",
    },
)
"""What the options are called in a profile's settings file."""


class Remedy(str, Enum):
    """What is tried when a node yields too few pages; the words of the option `remedies`."""

    COMPACT = "compact"
    DROP_CACHES = "drop_caches"


class OnPartial(str, Enum):
    """What becomes of a pool that could not be filled."""

    KEEP = "keep"
    ROLLBACK = "rollback"
    DEMOTE = "demote"


REMEDIES: Mapping[str, tuple[Remedy, ...]] = {
    "none": (),
    "compact": (Remedy.COMPACT,),
    "compact,drop_caches": (Remedy.COMPACT, Remedy.DROP_CACHES),
}

TIMEOUT = Number(1, 86_400, "s")
SHRINK_DELAY = Number(0, 86_400, "s")
OVERCOMMIT = Number(0, 2**40, "pages")
WORDS: Mapping[str, OneOf] = {
    "remedies": OneOf(tuple(REMEDIES)),
    "on_partial": OneOf(tuple(OnPartial)),
    "boot": OneOf(("never", "auto")),
    "shrink": OneOf(("never", "on_stop")),
}


def _sized() -> dict[str, OptionSpec]:
    described = {}
    for size in SIZES:
        described[f"pages_{size}"] = OptionSpec(f"huge pages of {size}: {PAGES_VALID}")
        described[f"mount_{size}"] = OptionSpec(
            f"where huge pages of {size} are mounted: {mounts.VALID}"
        )
        described[f"overcommit_{size}"] = OptionSpec(
            f"maximum of surplus pages of {size} that the kernel may allocate on demand,"
            " on all nodes together"
        )
    return described


OPTIONS: Mapping[str, OptionSpec] = {
    **_sized(),
    "headroom": OptionSpec(f"guests: additional pages for future guests: {HEADROOM_VALID}", "0"),
    "reserve_free": OptionSpec(
        f"memory of each node that is not used for huge pages: {RESERVE_VALID}; default: the"
        " lesser of 10% and 8192 MiB"
    ),
    "remedies": OptionSpec(
        "what to try on a node that provides too few pages: none, compact (its memory), or"
        " compact,drop_caches",
        "compact",
    ),
    "timeout": OptionSpec("maximum of seconds spent on one node's pool", "120"),
    "on_partial": OptionSpec(
        "what to do with a pool that could not be filled: keep the pages, rollback"
        " (restore its previous size), or demote (split free larger pages that the"
        " profile does not request)",
        "keep",
    ),
    "restart_libvirt": OptionSpec(
        "1: restart libvirtd or virtqemud after a new mount, because it looks for mounts"
        " only when it starts; guests keep running",
        "0",
    ),
    "boot": OptionSpec(
        "auto: pages of 1G and more are allocated by the kernel command line, and verify"
        " reports what is missing there (tuned-virt hugepages cmdline prints it); never:"
        " they are not",
        "never",
    ),
    "shrink": OptionSpec(
        "guests: never: pools keep their size until the profile is deactivated; on_stop: pages"
        " that no guest, running or defined, has requested for shrink_delay are given back",
        "never",
    ),
    "shrink_delay": OptionSpec("guests: seconds before pages are given back", "300"),
    **{name: OptionSpec(TRANSPARENT_HINTS[name]) for name in TRANSPARENT},
    "observe": opt.OBSERVE,
}


@dataclass(frozen=True)
class Amount:
    """A number of pages or MiB, or percent of something."""

    value: int
    percent: bool = False

    def of(self, whole: int) -> int:
        """In the unit of `whole` for percent, else as it is."""
        return whole * self.value // 100 if self.percent else self.value


@dataclass(frozen=True)
class PoolRequest:
    """What is asked of the pools of one size: by node, None for each node with memory.

    `text` is as it was written, for messages.
    """

    size_kib: int
    text: str
    nodes: Mapping[int | None, Amount] = field(default_factory=dict)
    guests: bool = False


@dataclass(frozen=True)
class HugepagesPolicy:
    """What a profile asks of huge pages. `overcommit` is in pages by size in KiB; `timeout` in s.

    `reserve` and `headroom` are in MiB where they are no percentage; `shrink_delay` is in s, None
    where pools of guests only grow.
    """

    pools: tuple[PoolRequest, ...] = ()
    overcommit: Mapping[int, int] = field(default_factory=dict)
    mounts: Mapping[int, HugetlbMount] = field(default_factory=dict)
    transparent: Mapping[str, str] = field(default_factory=dict)
    reserve: Amount | None = None
    headroom: Amount = Amount(0)
    remedies: tuple[Remedy, ...] = (Remedy.COMPACT,)
    timeout: int = 120
    on_partial: OnPartial = OnPartial.KEEP
    restart_libvirt: bool = False
    boot: bool = False
    shrink_delay: int | None = None

    @property
    def asks(self) -> bool:
        """Whether anything is to be set."""
        return bool(self.pools or self.overcommit or self.mounts or self.transparent)

    @property
    def follows_guests(self) -> bool:
        """Whether a pool is sized by what guests ask for."""
        return any(pool.guests for pool in self.pools)

    @property
    def undoing(self) -> HugepagesPolicy:
        """Asks for nothing, and tries as much as this one for what is put back."""
        return HugepagesPolicy(remedies=self.remedies, timeout=self.timeout)


def parse(options: Mapping[str, str]) -> HugepagesPolicy:
    """The policy of a profile's options (empty ones ask for nothing). Raises BadOptions."""
    return _Parser(opt.given(options)).policy()


class _Parser:
    """One pass over the options, which collects all that is wrong with them."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given
        self._errors: list[OptionError] = []

    def policy(self) -> HugepagesPolicy:
        """Raises BadOptions."""
        remedies = REMEDIES[self._word("remedies")]
        transparent = {name: self._try(_transparent, name, "") for name in TRANSPARENT}
        delay = self._try(SHRINK_DELAY.plain, "shrink_delay", 300)
        policy = HugepagesPolicy(
            pools=tuple(self._by_size("pages", _pool).values()),
            overcommit=self._by_size("overcommit", OVERCOMMIT.plain),
            mounts=self._by_size("mount", mounts.parse),
            transparent={name: value for name, value in transparent.items() if value},
            reserve=self._try(_amount(RESERVE_VALID), "reserve_free", None),
            headroom=self._try(_amount(HEADROOM_VALID), "headroom", Amount(0)),
            remedies=remedies,
            timeout=self._try(TIMEOUT.plain, "timeout", HugepagesPolicy.timeout),
            on_partial=OnPartial(self._word("on_partial")),
            restart_libvirt=self._try(opt.is_yes, "restart_libvirt", False),
            boot=self._word("boot") == "auto",
            shrink_delay=delay if self._word("shrink") == "on_stop" else None,
        )
        if self._errors:
            raise BadOptions(self._errors)
        return policy

    def _try(self, parse: Callable[[str, str], T], name: str, default: T) -> T:
        """An option's value; its default where it is not given, or is bad, which is noted."""
        if name not in self._given:
            return default
        try:
            return parse(name, self._given[name])
        except OptionError as error:
            self._errors.append(error)
            return default

    def _by_size(self, prefix: str, parse: Callable[[str, str], T]) -> dict[int, T]:
        found = {
            size_of(size): self._try(parse, name, None)
            for size in SIZES
            if (name := f"{prefix}_{size}") in self._given
        }
        return {size: value for size, value in found.items() if value is not None}

    def _word(self, name: str) -> str:
        return self._try(WORDS[name].parse, name, OPTIONS[name].default or "")


def _pool(name: str, text: str) -> PoolRequest:
    size = size_of(name.rpartition("_")[2])
    if text == GUESTS:
        return PoolRequest(size, text, guests=True)
    nodes: dict[int | None, Amount] = {}
    for item in text.split(","):
        where, _, amount = item.strip().partition(":")
        found = re.fullmatch(r"(\d{1,15})(%?)", amount, re.ASCII)
        places = _places(where)
        if not found or not places or nodes.keys() & set(places):
            raise OptionError(name, text, PAGES_VALID)
        nodes.update(dict.fromkeys(places, _amount_of(name, text, found, PAGES_VALID)))
    return PoolRequest(size, text, nodes)


def _places(where: str) -> list[int | None]:
    """Nodes of an item; [None] for all; none at all for what is neither."""
    if where == ALL:
        return [None]
    try:
        return list(sorted(cpuset.parse(where)))
    except ValueError:
        return []


def _amount_of(name: str, text: str, found: re.Match[str], valid: str) -> Amount:
    amount = Amount(int(found[1]), bool(found[2]))
    if amount.percent and amount.value > 100:
        raise OptionError(name, text, valid)
    return amount


def _amount(valid: str) -> Callable[[str, str], Amount]:
    def parse(name: str, text: str) -> Amount:
        found = re.fullmatch(r"(\d{1,9})(%?)", text, re.ASCII)
        if not found:
            raise OptionError(name, text, valid)
        return _amount_of(name, text, found, valid)

    return parse


def _transparent(name: str, text: str) -> str:
    takes = TRANSPARENT[name]
    return takes.parse(name, text) if isinstance(takes, OneOf) else str(takes.plain(name, text))
