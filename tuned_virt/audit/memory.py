# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory, its limits and locks, hot plug, transparent huge pages: chapters 8.2, 8.3."""

from __future__ import annotations

from collections.abc import Iterator

from tuned_virt.audit.rule import ByProfile, Found, Severity, guest_rule, host_rule
from tuned_virt.audit.scene import AuditedGuest, Scene

MEMTUNE = "https://libvirt.org/formatdomain.html#memory-tuning"
BACKING = "https://libvirt.org/formatdomain.html#memory-backing"
NO_LIMIT = "virsh memtune {guest} --hard-limit -1 --swap-hard-limit -1 --config"
"""Both, for libvirt refuses a hard_limit over a swap_hard_limit that is left."""

FOR_QEMU = 1 << 20
"""KiB that a limit is advised to leave to QEMU itself; measure a guest's own use."""


def _host_memory(scene: Scene) -> int:
    return sum(node.memory for node in scene.topology.nodes)


@guest_rule(
    "memory-over-host",
    Severity.ERROR,
    checks="a guest with more memory than the host has",
    advice="less memory for the guest than the host has",
    why="it swaps as soon as it uses its memory, or the kernel kills it",
    guide="8.2",
    page="https://docs.kernel.org/admin-guide/mm/concepts.html",
    mends="virt-xml {guest} --edit --memory memory={mib},currentMemory={mib}",
)
def over_host(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """By what it starts with, hot plug left out."""
    have = _host_memory(scene)
    if have and one.guest.memory > have:
        half = have >> 11
        yield Found(f"{one.guest.memory >> 10} MiB on a host with {have >> 10}", {"mib": half})


@host_rule(
    "memory-overcommit",
    Severity.WARNING,
    checks="running guests with more memory together than the host has",
    advice="less memory for guests that do not use theirs, or fewer guests; swap and KSM",
    why="when all use their memory the host swaps guests out, or kills one",
    guide="8.2",
    page="https://docs.kernel.org/mm/overcommit-accounting.html",
    profile=ByProfile("ksm_mode=auto", by_itself=True),
)
def overcommit(scene: Scene) -> Iterator[Found]:
    """Without counting what KSM merges."""
    have, need = _host_memory(scene), sum(one.guest.memory for one in scene.running)
    if have and need > have:
        yield Found(f"{len(scene.running)} guests have {need >> 10} MiB, the host {have >> 10}")


@guest_rule(
    "memory-hard-limit-low",
    Severity.ERROR,
    checks="a hard_limit that the guest's own memory reaches",
    advice="no hard_limit, or one well above the guest's memory",
    why="QEMU needs memory beside the guest's: the kernel kills the guest at its limit",
    guide="8.3.2.1",
    page=MEMTUNE,
    mends=NO_LIMIT,
    profile=ByProfile("vm_memory_hard_limit"),
)
def hard_limit_low(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Also one that is just the guest's memory."""
    limit = one.hardware.limits.hard
    if limit is not None and limit <= one.guest.memory:
        yield Found(f"hard_limit is {limit >> 10} MiB, its memory {one.guest.memory >> 10}")


@guest_rule(
    "memory-hard-limit",
    Severity.WARNING,
    checks="a hard_limit on a guest whose memory is not locked",
    advice="no hard_limit",
    why="nobody knows what QEMU needs beside the guest: libvirt's manual advises against it",
    guide="8.3.2.1",
    page=MEMTUNE,
    mends=NO_LIMIT,
)
def hard_limit(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Locked memory needs one."""
    limit = one.hardware.limits.hard
    if limit is not None and limit > one.guest.memory and not one.guest.locked:
        yield Found(f"hard_limit is {limit >> 10} MiB, its memory {one.guest.memory >> 10}")


@guest_rule(
    "memory-swap-limit",
    Severity.ERROR,
    checks="a swap_hard_limit that is not over the hard_limit",
    advice="a swap_hard_limit over the hard_limit, or none",
    why="it limits memory and swap together: a lower one is refused, an equal one leaves none",
    guide="8.3.2.1",
    page=MEMTUNE,
    mends="virsh memtune {guest} --swap-hard-limit -1 --config",
)
def swap_limit(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Only where both are set."""
    limits = one.hardware.limits
    if limits.hard is None or limits.swap_hard is None or limits.swap_hard > limits.hard:
        return
    told = f"swap_hard_limit is {limits.swap_hard >> 10} MiB, hard_limit {limits.hard >> 10}"
    yield Found(told, severity=Severity.WARNING if limits.swap_hard == limits.hard else None)


@guest_rule(
    "memory-locked-unlimited",
    Severity.WARNING,
    checks="locked memory without a hard_limit",
    advice="a hard_limit of the guest's memory and what QEMU needs; measure that",
    why="libvirt then removes the limit on locked memory: QEMU may lock all memory of the host",
    guide="8.3.2.2",
    page=BACKING,
    mends="virsh memtune {guest} --hard-limit {kib} --config",
)
def locked_unlimited(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """The guide says that it must be set."""
    if one.guest.locked and one.hardware.limits.hard is None:
        values = {"kib": one.guest.max_memory + FOR_QEMU}
        yield Found(f"<locked/>, {one.guest.max_memory >> 10} MiB, no hard_limit", values)


@guest_rule(
    "memory-hotplug",
    Severity.INFO,
    checks="a guest whose memory can be hot-plugged",
    advice="in the guest: tuned-adm profile virtual-guest-plus, or a udev rule that onlines it",
    why="plugged memory is not used before the guest brings it online",
    guide="8.2",
    page="https://docs.kernel.org/admin-guide/mm/memory-hotplug.html",
    profile=ByProfile("memory_auto_online=auto", by_itself=True, profile="virtual-guest-plus"),
)
def hotplug(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Where the profile inside the guest is not known to do it."""
    plugged = [one for one in one.hardware.plugged if one.model in ("dimm", "virtio-mem")]
    if one.profile.value and "virtual-guest-plus" in one.profile.value.split():
        return
    if one.hardware.slots or plugged:
        most = max(one.guest.max_memory, one.guest.memory) >> 10
        yield Found(f"{one.hardware.slots} slots, up to {most} MiB")


@host_rule(
    "memory-thp-off",
    Severity.WARNING,
    checks="transparent huge pages turned off while guests use ordinary pages",
    advice="always or madvise (QEMU asks for them)",
    why="the CPU walks two page tables for each miss of its TLB, with 4 KiB pages many more",
    guide="8.3.3.1",
    page="https://docs.kernel.org/admin-guide/mm/transhuge.html",
    mends="echo always > /sys/kernel/mm/transparent_hugepage/enabled",
    profile=ByProfile("thp=always"),
)
def thp_off(scene: Scene) -> Iterator[Found]:
    """Guests that have huge pages of their own do not need them."""
    plain = [one for one in scene.running if not one.guest.huge_pages]
    if plain and scene.facts.thp.get() == "never":
        yield Found(f"never, and {len(plain)} guests have ordinary pages")
