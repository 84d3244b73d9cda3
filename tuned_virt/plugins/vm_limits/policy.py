# SPDX-License-Identifier: GPL-2.0-or-later
"""What an administrator asks of vm_limits, and which of it a guest can be given."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tuned_virt.core.options import (
    OBSERVE,
    SYSTEM,
    BadOptions,
    Number,
    OptionError,
    OptionSpec,
    given,
    is_yes,
    parsed,
    uri,
)
from tuned_virt.core.section_settings import SettingNames
from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.libvirt_api.resource_tag import UNLIMITED
from tuned_virt.model.guest import Guest

MEMORY = ("memory_hard_limit", "memory_soft_limit", "swap_hard_limit")
SHARES = "cpu_shares"

KIB = {"": 1, "K": 1, "M": 1 << 10, "G": 1 << 20, "T": 1 << 30}
SIZE = re.compile(r"(\d{1,15})([KMGT]?)", re.ASCII)
VALID_SIZE = (
    "a size with K, M, G or T such as 4096M (KiB without a unit), or a percentage of the"
    " guest's memory such as 150%"
)
PERCENT = re.compile(r"(\d{1,4})%", re.ASCII)

SHARES_RANGE = Number(1, 10000)
"""libvirt's range on cgroup v2, where it becomes cpu.weight; v1 takes 2 to 262144."""

LEAST_OVERHEAD = 512 << 10
"""KiB beside the guest's memory that QEMU may need at least: a hard limit under memory and this is
refused, because the kernel then kills the guest. libvirt's formatdomain (hard_limit) says that it
is not possible to know how much QEMU needs and advises against any limit."""


OPTIONS: Mapping[str, OptionSpec] = {
    "memory_hard_limit": OptionSpec(
        "Maximum memory of a guest, including QEMU's own: the kernel kills a guest that"
        " exceeds it; 4096M, or 150% of its memory; libvirt advises against it"
    ),
    "memory_soft_limit": OptionSpec(
        "Memory of a guest, including QEMU's own, beyond which the kernel takes it back: with"
        " cgroup v1 when the host runs short, with v2 always (memory.high); 2048M, or 150% of its"
        " memory"
    ),
    "swap_hard_limit": OptionSpec(
        "Maximum of memory and swap together; not below memory_hard_limit, which it needs"
    ),
    "min_guarantee": OptionSpec("Refused: QEMU has no guaranteed minimum"),
    "cpu_shares": OptionSpec(
        "CPU weight relative to other guests, 1 to 10000; on cgroup v2 a guest has 100 by default"
    ),
    "uri": OptionSpec("libvirt's URI; guests of other machines cannot be tuned", SYSTEM),
    "observe": OBSERVE,
}

NAMES = SettingNames("vm_", {"devices": "vm_limit_devices"})
"""What the options are called in a profile's settings file."""


@dataclass(frozen=True)
class Size:
    """Memory in KiB, or in percent of the guest's."""

    number: int
    percent: bool = False

    def kib(self, guest: Guest) -> int:
        """In KiB, for one guest."""
        return guest.memory * self.number // 100 if self.percent else self.number


@dataclass(frozen=True)
class LimitsPolicy:
    """The options of one selection of guests: limits by name, None where nothing is asked."""

    memory: Mapping[str, Size] = field(default_factory=dict)
    shares: int | None = None
    uri: str = SYSTEM
    observe: bool = False


def parse(options: Mapping[str, str]) -> LimitsPolicy:
    """The policy of a profile's options. Raises BadOptions, naming all that is wrong."""
    told = given(options)
    values, errors = parsed(told, READERS)
    memory = {name: values[name] for name in MEMORY if name in values}
    errors += _order(memory, told)
    if errors:
        raise BadOptions(errors)
    rest = (values.get(SHARES), values.get("uri", SYSTEM), values.get("observe", False))
    return LimitsPolicy(memory, *rest)


def _size(name: str, text: str) -> Size:
    share, size = PERCENT.fullmatch(text), SIZE.fullmatch(text)
    if share and int(share[1]) > 0:
        return Size(int(share[1]), percent=True)
    if size and 0 < int(size[1]) * KIB[size[2]] < UNLIMITED:
        return Size(int(size[1]) * KIB[size[2]])
    raise OptionError(name, text, VALID_SIZE)


def _refused(name: str, text: str) -> None:
    raise OptionError(name, text, "QEMU refuses it: leave it out")


READERS: Mapping[str, Callable[[str, str], Any]] = {
    **dict.fromkeys(MEMORY, _size),
    SHARES: SHARES_RANGE.plain,
    "uri": uri,
    "observe": is_yes,
    "min_guarantee": _refused,
}


def _order(memory: Mapping[str, Size], told: Mapping[str, str]) -> Iterator[OptionError]:
    """The guide's rule, as far as it can be judged without a guest."""
    hard, swap = memory.get("memory_hard_limit"), memory.get("swap_hard_limit")
    if swap and not hard:
        valid = "memory and swap together: it needs memory_hard_limit"
        yield OptionError("swap_hard_limit", told["swap_hard_limit"], valid)
    elif swap and hard and swap.percent == hard.percent and swap.number < hard.number:
        valid = f"not below memory_hard_limit={told['memory_hard_limit']}"
        yield OptionError("swap_hard_limit", told["swap_hard_limit"], valid)


@dataclass(frozen=True)
class WantedLimits:
    """What one guest is to be given: KiB by libvirt's names, and shares; and what it is not."""

    memory: Mapping[str, int] = field(default_factory=dict)
    shares: int | None = None
    refused: tuple[str, ...] = ()


LIBVIRT = {
    "memory_hard_limit": "hard_limit",
    "memory_soft_limit": "soft_limit",
    "swap_hard_limit": "swap_hard_limit",
}
"""Option → virDomainSetMemoryParameters' name."""


def wanted(policy: LimitsPolicy, guest: Guest) -> WantedLimits:
    """The policy for one guest, with what would harm it refused."""
    kib = {LIBVIRT[name]: size.kib(guest) for name, size in policy.memory.items()}
    refused = []
    hard, swap = kib.get("hard_limit"), kib.get("swap_hard_limit")
    needs = max(guest.memory, guest.max_memory) + LEAST_OVERHEAD
    if hard is not None and hard < needs:
        refused.append(
            f"memory_hard_limit of {hard >> 10} MiB: with QEMU the guest needs at least"
            f" {needs >> 10} MiB"
        )
    if guest.locked and hard is None and kib:
        refused.append("its memory is <locked/>, which needs memory_hard_limit")
    if hard is not None and swap is not None and swap < hard:
        refused.append(f"swap_hard_limit of {swap >> 10} MiB is below memory_hard_limit")
    if refused:
        return WantedLimits({}, policy.shares, tuple(refused))
    return WantedLimits(kib, policy.shares)
