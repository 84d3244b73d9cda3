# SPDX-License-Identifier: GPL-2.0-or-later
"""Pinning one guest and putting one back: the only place where vm_pinning changes a guest.

Order matters for a `kill -9` between any two calls: the original is on disk before, the tag names
what will be set before it is set, and on the way back it is changed last. Whatever is there and
equals the tag, what is held, or what was found, is ours; all else is somebody else's and stays.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

from tuned_virt.core.journal import Journal
from tuned_virt.core.plan import Change
from tuned_virt.guests.tracker import TrackedGuest
from tuned_virt.kernel.cpuset import text as cpus_text
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import guest_pins as libvirt
from tuned_virt.libvirt_api import placement_tag
from tuned_virt.libvirt_api.connection import Connection, Domain
from tuned_virt.libvirt_api.errors import GuestGone
from tuned_virt.libvirt_api.placement_tag import Pins
from tuned_virt.model import topology
from tuned_virt.model.guest import printable, qemu_threads
from tuned_virt.placement import Placement
from tuned_virt.plugins.vm_pinning.original import PLUGIN, OriginalPins

log = logging.getLogger("tuned")

WALLS = ("restrictive", "strict")
"""Memory modes that are a <numatune>."""

ONLINE = "/sys/devices/system/cpu/online"

Refused = Mapping[str, str]
"""What libvirt refused → why."""


def wanted(placement: Placement, guest_vcpus: int) -> Pins:
    """What a placement means for libvirt.

    vCPUs that are not plugged in yet are sent where they do no harm: a floating guest's to the same
    CPUs, a dedicated one's to the emulator's, until they are planned for.
    """
    spare = placement.emulator or next(iter(placement.vcpus.values()), "")
    if len(set(placement.vcpus.values())) == 1:
        spare = next(iter(placement.vcpus.values()))
    vcpus = {number: placement.vcpus.get(number, spare) for number in range(guest_vcpus)}
    memory = placement.memory
    return Pins(
        {number: cpus for number, cpus in vcpus.items() if cpus} if placement.vcpus else {},
        placement.emulator or None,
        placement.iothreads,
        (memory.mode, memory.nodeset) if memory and memory.mode in WALLS else None,
    )


def needed(pins: Pins, original: OriginalPins) -> Pins:
    """Those pins that change anything; what is as wanted is not even tagged."""
    as_found = Pins(original.vcpus, original.emulator, original.iothreads, original.memory)
    return placement_tag.without(pins, as_found)


def brought(fs: KernelFS, seen: TrackedGuest) -> bool:
    """Whether a guest has started with pins of ours from its configuration."""
    ours, _ = placement_tag.read(seen.active.xml)
    return bool(set(ours.vcpus.values()) - {fs.read_optional(ONLINE)})


def found(fs: KernelFS, link: Connection, seen: TrackedGuest, uri: str) -> OriginalPins:
    """A guest as it is, to be kept; pins of ours that its XML brought along are none.

    Raises LibvirtError.
    """
    active = seen.active
    ours, present = placement_tag.read(active.xml)
    blank = OriginalPins(uri, active.uuid, active.name, active.id, seen.pid, seen.start)
    now = _now(fs, link, seen)
    online = fs.read_optional(ONLINE) or ""
    return replace(
        blank,
        vcpus={**now.vcpus, **dict.fromkeys(ours.vcpus, online)},
        iothreads={**now.iothreads, **dict.fromkeys(ours.iothreads, online)},
        emulator=online if ours.emulator else now.emulator or "",
        memory=None if ours.memory else present.memory,
        nodes=cpus_text(topology.memory_nodes(fs)),
    )


def _now(fs: KernelFS, link: Connection, seen: TrackedGuest) -> Pins:
    """Where its threads are, by the kernel, or where that does not show them by libvirt."""
    if seen.pid:
        told = qemu_threads.affinity(fs, qemu_threads.read(fs, seen.pid))
        if told.vcpus:
            return Pins(told.vcpus, told.emulator.get(seen.pid), told.iothreads)
    return libvirt.configured(link, seen.active)


class Pinner:
    """Changes guests of one libvirt. For its worker; may raise LibvirtError and GuestGone."""

    def __init__(self, fs: KernelFS, journal: Journal) -> None:
        self._fs = fs
        self._journal = journal

    def pin(
        self, link: Connection, seen: TrackedGuest, pins: Pins, placement: Placement
    ) -> Refused:
        """Set pins, tagged as ours; nothing of them where something is refused."""
        refused = dict(libvirt.tag(link, seen.active, pins))
        if not refused:
            refused = libvirt.apply(link, seen.active, pins)
            self._confine(seen, pins.emulator)
        if not refused:
            self._write(seen.active, "pins", "as found", words(pins), placement.why)
        return refused

    def adopt(
        self, link: Connection, seen: TrackedGuest, original: OriginalPins, held: Pins
    ) -> Domain:
        """Tag what is ours after a `kill -9` in the middle of pinning or putting back."""
        tagged, present = placement_tag.read(seen.active.xml)
        ours = placement_tag.common(present, [tagged, held, original.back(present)])
        if ours == tagged:
            return seen.active
        libvirt.tag(link, seen.active, ours)
        return link.reread(seen.active)

    def put_back(
        self, link: Connection, seen: TrackedGuest, original: OriginalPins, held: Pins
    ) -> Refused:
        """Set what is ours to what was found, and keep it tagged as ours: it cannot be removed."""
        active = link.reread(seen.active)
        tagged, present = placement_tag.read(active.xml)
        ours = placement_tag.common(present, [tagged, held])
        back = original.back(ours)
        refused = dict(libvirt.apply(link, active, back))
        if seen.pid and ours.emulator:
            self._confine(seen, back.emulator)
        if not refused:
            rest = placement_tag.common(present, [original.back(present)])
            refused = dict(libvirt.tag(link, active, _joined(back, rest)))
            if ours:
                self._write(active, "pins", words(ours), "as found", "nobody wants them any more")
        return refused

    def _confine(self, seen: TrackedGuest, cpus: str | None) -> None:
        """Bring along emulator threads that libvirt misses where it has no cpuset controller."""
        if not (seen.pid and cpus):
            return
        told = qemu_threads.affinity(self._fs, qemu_threads.read(self._fs, seen.pid))
        qemu_threads.confine((thread for thread, now in told.emulator.items() if now != cpus), cpus)

    def _write(self, active: Domain, setting: str, before: str, after: str, why: str) -> None:
        name = printable(active.name)
        change = Change(f"{name} {setting}", f"libvirt guest {active.uuid}", before, after, why)
        self._journal.add(PLUGIN, change)
        log.info("%s: guest %s: %s (%s)", PLUGIN, name, after, why)


def _joined(one: Pins, other: Pins) -> Pins:
    return Pins(
        {**other.vcpus, **one.vcpus},
        one.emulator or other.emulator,
        {**other.iothreads, **one.iothreads},
        one.memory or other.memory,
    )


def words(pins: Pins) -> str:
    """Pins in one line: equal vCPUs together."""
    parts = [f"vCPU {vcpus} on {cpus}" for vcpus, cpus in _grouped(pins.vcpus)]
    parts += [f"emulator on {pins.emulator}"] if pins.emulator else []
    parts += [f"IOThread {numbers} on {cpus}" for numbers, cpus in _grouped(pins.iothreads)]
    parts += [f"memory {pins.memory[0]} on node {pins.memory[1]}"] if pins.memory else []
    return ", ".join(parts) or "nothing"


def _grouped(places: Mapping[int, str]) -> Iterable[tuple[str, str]]:
    groups: dict[str, list[int]] = {}
    for number, cpus in places.items():
        groups.setdefault(cpus, []).append(number)
    return [(cpus_text(numbers), cpus) for cpus, numbers in groups.items()]


__all__ = ["GuestGone", "Pinner", "Refused", "brought", "found", "wanted", "words"]
