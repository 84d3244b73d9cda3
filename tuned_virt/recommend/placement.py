# SPDX-License-Identifier: GPL-2.0-or-later
"""Who gets CPUs of its own, who shares, and what is kept off dedicated CPUs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tuned_virt.audit.scene import AuditedGuest
from tuned_virt.frozen_dataclasses import replace
from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Guest
from tuned_virt.placement import PlacementKind, for_guests, parse, plan
from tuned_virt.recommend.advice import Advice, LeftSetting, OutsideStep, RecommendedSetting
from tuned_virt.recommend.situation import GIB, Situation, count, named, setting_name, size

PINNING = "guide 9.3"
VCPUS = 4
"""A guest with a device and fewer vCPUs is a router or a file server more often than a game."""

BESIDE = 2
"""Most vCPUs of the others for each CPU that dedicated guests leave."""

CROWDED = 1.5
"""vCPUs for each CPU."""


def recommend(seen: Situation) -> Iterator[Advice]:
    """Dedicated guests, then the rest."""
    wanted = [one for one in seen.guests if _needs_cpus(one)]
    served, why = _served(seen, wanted)
    if served:
        yield from _dedicated(seen, served)
    if why:
        yield LeftSetting("vm_dedicated", why, short=True)
    elif not served:
        yield LeftSetting("vm_dedicated", _nobody(seen))
    yield from _shared(seen)
    yield from _balancing(seen)
    yield LeftSetting(
        "vm_memory_hard_limit, vm_cpu_shares, vm_blkio_weight",
        "who may take how much is for you to say",
    )


def _needs_cpus(one: AuditedGuest) -> bool:
    """A PCI device, several vCPUs, and a desk before it or huge pages behind it; no pins."""
    guest, hardware = one.guest, one.hardware
    desk = "microsoft.com/win" in hardware.os_id or hardware.usb_passed
    desk = desk or any(kind == "evdev" for kind, _ in hardware.inputs)
    tuned = bool(guest.huge_pages) or guest.owned.realtime
    free = not (guest.owned.vcpus or guest.owned.automatic)
    return bool(guest.devices) and len(guest.online) >= VCPUS and free and bool(desk or tuned)


def _nobody(seen: Situation) -> str:
    own = [one for one in seen.guests if one.guest.owned.vcpus]
    if own:
        return f"{count(len(own), 'guest')} pinned by the owner ({named(own)}): pins are kept"
    return (
        "no guest has a PCI device of its own with huge pages, real-time threads, or keyboard and"
        " mouse; vCPUs that float inside a node serve the rest"
    )


def _served(seen: Situation, wanted: Sequence[AuditedGuest]) -> tuple[list[AuditedGuest], str]:
    """Those that the planner gives CPUs of their own while the others have enough; else why."""
    chosen = [one for one in wanted if setting_name(one)]
    if not chosen:
        return [], ""
    names = " ".join(map(setting_name, chosen))
    guests = [_cpus_alone(one) for one in seen.guests]
    options = {"dedicated": names, "housekeeping": cpuset.text(_ordinary(seen)) or None}
    made = plan(for_guests(seen.host, guests), guests, parse(options), {})
    got = {one.uuid or one.guest for one in made.placements if one.kind is PlacementKind.DEDICATED}
    lacking = [one for one in chosen if one.guest.key not in got]
    if lacking:
        return [], f"the planner finds no CPUs of their own for {named(lacking)}"
    vcpus = sum(len(one.guest.online) for one in chosen)
    others = sum(len(one.guest.online) for one in seen.busy if one not in chosen)
    left = len(seen.host.cpus) - vcpus
    if others > BESIDE * left:
        return [], (
            f"{named(chosen)} would take {vcpus} of {len(seen.host.cpus)} CPUs, and leave {left} to"
            f" {others} vCPUs of others"
        )
    return chosen, ""


def _cpus_alone(one: AuditedGuest) -> Guest:
    """Without its memory, whose pages are yet to be allocated: `hugepages` asks if they fit."""
    cells = tuple(replace(cell, memory=0) for cell in one.guest.cells)
    return replace(one.guest, huge_pages=(), memory_devices=(), memory=0, max_memory=0, cells=cells)


def _ordinary(seen: Situation) -> frozenset[int]:
    """CPUs outside isolcpus, where there is such."""
    host = seen.host
    return frozenset(host.cpus) - host.isolated if host.isolated & host.cpus.keys() else frozenset()


def _dedicated(seen: Situation, served: Sequence[AuditedGuest]) -> Iterator[Advice]:
    vcpus = sum(len(one.guest.online) for one in served)
    devices = sum(len(one.guest.devices) for one in served)
    yield RecommendedSetting(
        "vm_dedicated",
        " ".join(map(setting_name, served)),
        f"{named(served)}: {vcpus} vCPUs of {len(seen.host.cpus)} CPUs,"
        f" {count(devices, 'PCI device')} passed through",
        "a vCPU that has to wait for its CPU is a frame or a packet late",
        PINNING,
    )
    if _ordinary(seen):
        yield from _beside_isolated(seen)
    else:
        yield RecommendedSetting(
            "vm_isolation",
            "host",
            f"isolcpus is not set, so the host's tasks run on all {len(seen.host.cpus)} CPUs",
            "while these guests run, the host's own tasks stay off their CPUs, and return after",
            "https://docs.kernel.org/admin-guide/cgroup-v2.html",
        )
    yield from _caches(seen)
    for one in served:
        if not one.guest.huge_pages:
            yield OutsideStep(
                f"virt-xml {one.handle} --edit --memorybacking hugepages=yes",
                f"{named([one])} has {size(one.guest.memory)} in ordinary pages; run recommend"
                " again after it, for the pool",
                "guide 8.3.3",
            )


def _beside_isolated(seen: Situation) -> Iterator[Advice]:
    rest = cpuset.text(_ordinary(seen))
    told = f"isolcpus={cpuset.text(seen.host.isolated)} leaves the host {rest}"
    yield RecommendedSetting(
        "vm_housekeeping",
        rest,
        told,
        "dedicated vCPUs get the isolated CPUs, and nothing of the host is pinned there",
        "https://docs.kernel.org/admin-guide/kernel-parameters.html",
    )
    yield RecommendedSetting(
        "vm_emulator",
        "housekeeping",
        told,
        "emulator threads on an isolated CPU are never moved away from a vCPU",
        "https://libvirt.org/formatdomain.html#cpu-tuning",
    )
    yield LeftSetting("vm_isolation", "isolcpus keeps the host's tasks off these CPUs already")


def _caches(seen: Situation) -> Iterator[Advice]:
    caches = seen.host.caches
    sizes = sorted({one.size for one in caches})
    speeds = {cpu.capacity for cpu in seen.host.cpus.values()}
    if len(sizes) > 1:
        largest = next(one for one in caches if one.size == sizes[-1])
        yield RecommendedSetting(
            "vm_prefer",
            "cache",
            f"last-level caches of {size(sizes[0])} and {size(sizes[-1])}, the largest of CPUs"
            f" {cpuset.text(largest.cpus)}",
            "games and databases gain more from cache than from clock",
            "https://docs.kernel.org/admin-guide/cputopology.html",
        )
    elif len(speeds) > 1:
        yield LeftSetting("vm_prefer", "fast cores come first by themselves; all have one cache")
    else:
        yield LeftSetting("vm_prefer", "last-level caches are of one size")


def _shared(seen: Situation) -> Iterator[Advice]:
    vcpus, cpus = sum(len(one.guest.online) for one in seen.busy), len(seen.host.cpus)
    worst = max(seen.delays.values(), default=None)
    waits = "" if worst is None else f"; the vCPU that waits most waits {worst:.0f} % of the time"
    told = f"{vcpus} vCPUs on {cpus} CPUs, {vcpus / cpus:.1f} for each{waits}"
    if vcpus > CROWDED * cpus:
        yield RecommendedSetting(
            "vm_overcommit",
            "auto",
            told,
            "every guest is placed, each where it leaves the nodes most level",
            "guide 9.3",
        )
    else:
        yield LeftSetting("vm_overcommit", told)
    if sum(bool(node.cpus) for node in seen.host.nodes) == 1:
        yield LeftSetting("vm_policy", "one NUMA node: node sets no pins, all memory is local")
    else:
        yield LeftSetting("vm_policy", "node keeps each guest's vCPUs and memory on one node")


def _balancing(seen: Situation) -> Iterator[Advice]:
    """Guests that are all pinned with their memory gain nothing from automatic balancing."""
    owned = [one.guest.owned for one in seen.busy]
    kept = [one for one in owned if one.vcpus and (one.nodes or one.memnodes)]
    several = sum(bool(node.cpus) for node in seen.host.nodes) > 1
    if several and kept and len(kept) == len(owned):
        yield RecommendedSetting(
            "vm_numa_balancing",
            "0",
            f"all {count(len(kept), 'guest')} pinned with their memory",
            "the kernel unmaps pages to see who uses them, and has nothing left to improve",
            "guide 9.3",
        )


def strict(seen: Situation) -> Iterator[Advice]:
    """Guests of 1 GiB pages that name no node, on a host with several."""
    if sum(bool(node.cpus) for node in seen.host.nodes) < 2:
        return
    for one in seen.huge:
        big = any((page.size or seen.host.huge_page) >= GIB for page in one.guest.huge_pages)
        own = one.guest.owned
        free = not (own.vcpus or own.nodes or own.memnodes or own.automatic)
        name = setting_name(one)
        if big and free and name and one.guest.devices:
            yield RecommendedSetting(
                f"vm_memory.{name}",
                "strict",
                f"{named([one])}: {size(one.guest.memory)} in pages of 1 GiB, no <numatune>",
                "memory of another node would be as slow as the link between them for as long as"
                " the guest runs",
                "guide 9.3.1",
            )
