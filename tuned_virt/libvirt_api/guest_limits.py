# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading and setting one running guest's memory limits and CPU weight through libvirt."""

from __future__ import annotations

from collections.abc import Mapping

from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.connection import Connection, Domain
from tuned_virt.libvirt_api.errors import LibvirtError
from tuned_virt.libvirt_api.guest_pins import CallBatch
from tuned_virt.libvirt_api.resource_tag import UNLIMITED, ResourceTag
from tuned_virt.libvirt_api.tagging import tag
from tuned_virt.libvirt_api.worker import GuestsView, ask_once

MEMORY = ("hard_limit", "soft_limit", "swap_hard_limit")

INVALID = 55
"""VIR_ERR_OPERATION_INVALID, as QEMU's driver says it where the cpu controller is not mounted."""

RAISED = ("swap_hard_limit", "hard_limit", "soft_limit")
"""libvirt holds hard_limit below swap_hard_limit at every moment: raised in this order, lowered in
the other."""


def memory_limits(link: Connection, active: Domain) -> dict[str, int]:
    """In KiB by libvirt's names. Raises LibvirtError, also where there is no memory controller."""
    with link.asking():
        limits = active.domain.memoryParameters(0)
    return {name: int(limits[name]) for name in MEMORY if name in limits}


@dataclass(frozen=True)
class LimitsNow:
    """A running guest's limits in KiB by libvirt's names, and its weight; why it is not known."""

    memory: Mapping[str, int] = field(default_factory=dict)
    shares: int | None = None
    error: str = ""


def current(uri: str) -> dict[str, LimitsNow]:
    """The limits of every running guest by UUID; nothing where libvirt does not tell."""
    told = ask_once(lambda view: {uuid: _now(view, one) for uuid, one in view.guests.items()}, uri)
    return told or {}


def _now(view: GuestsView, active: Domain) -> LimitsNow:
    link = view.connection
    try:
        return LimitsNow(memory_limits(link, active), cpu_shares(link, active))
    except LibvirtError as error:
        return LimitsNow(error=str(error))


def cpu_shares(link: Connection, active: Domain) -> int | None:
    """The CPU weight; None without a cpu controller. Raises LibvirtError where it is not told."""
    try:
        with link.asking():
            shares: int | None = active.domain.schedulerParameters().get("cpu_shares")
            return shares
    except LibvirtError as error:
        if error.code != INVALID:
            raise
        return None


def apply(
    link: Connection, active: Domain, memory: Mapping[str, int], shares: int | None
) -> dict[str, str]:
    """Set limits; what was refused, and why. Raises GuestGone and LibvirtError."""
    do, live = CallBatch(link, active), binding.libvirt().VIR_DOMAIN_AFFECT_LIVE
    try:
        now = memory_limits(link, active)
    except LibvirtError as error:
        if not link.alive():
            raise
        now = {}
        if memory:
            return {"memory limits": str(error)}
    rises = memory.get("hard_limit", 0) > now.get("hard_limit", 0)
    domain = active.domain
    limits = {name: kib for name, kib in memory.items() if kib < UNLIMITED}
    tag(do, ResourceTag.LIMITS, {**limits, **({} if shares is None else {"cpu_shares": shares})})
    for name in RAISED if rises else reversed(RAISED):
        kib = memory.get(name)
        if kib is not None and kib != now.get(name):
            do(f"{name} {kib} KiB", domain.setMemoryParameters, {name: kib}, live)
    if shares is not None:
        link.own(active, "cputune.cpu_shares", str(shares))
        weight = {"cpu_shares": shares}
        do(f"cpu_shares {shares}", domain.setSchedulerParametersFlags, weight, live)
    if limits.keys() != memory.keys() and not do.refused:
        tag(do, ResourceTag.LIMITS, {})
    return do.refused
