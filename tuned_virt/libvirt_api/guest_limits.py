# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading and setting one running guest's memory limits and CPU weight through libvirt."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.connection import Connection, Domain
from tuned_virt.libvirt_api.errors import LibvirtError
from tuned_virt.libvirt_api.guest_pins import CallBatch

MEMORY = ("hard_limit", "soft_limit", "swap_hard_limit")

RAISED = ("swap_hard_limit", "hard_limit", "soft_limit")
"""libvirt holds hard_limit below swap_hard_limit at every moment: raised in this order, lowered in
the other."""


def read(link: Connection, active: Domain) -> tuple[Mapping[str, int], int | None]:
    """Limits in KiB by libvirt's names, and the CPU weight; None without a cpu controller.

    Raises LibvirtError where there is no memory controller.
    """
    with link.asking():
        memory = active.domain.memoryParameters(0)
    shares = None
    with contextlib.suppress(LibvirtError), link.asking():
        shares = active.domain.schedulerParameters().get("cpu_shares")
    return {name: int(memory[name]) for name in MEMORY if name in memory}, shares


def apply(
    link: Connection, active: Domain, memory: Mapping[str, int], shares: int | None
) -> dict[str, str]:
    """Set limits; what was refused, and why. Raises GuestGone and LibvirtError."""
    do, live = CallBatch(link, active), binding.libvirt.VIR_DOMAIN_AFFECT_LIVE
    try:
        now, _ = read(link, active)
    except LibvirtError as error:
        if not link.alive():
            raise
        now = {}
        if memory:
            return {"memory limits": str(error)}
    rises = memory.get("hard_limit", 0) > now.get("hard_limit", 0)
    domain = active.domain
    for name in RAISED if rises else reversed(RAISED):
        kib = memory.get(name)
        if kib is not None and kib != now.get(name):
            do(f"{name} {kib} KiB", domain.setMemoryParameters, {name: kib}, live)
    if shares is not None:
        link.own(active, "cputune.cpu_shares", str(shares))
        weight = {"cpu_shares": shares}
        do(f"cpu_shares {shares}", domain.setSchedulerParametersFlags, weight, live)
    return do.refused
