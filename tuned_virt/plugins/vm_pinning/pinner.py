# SPDX-License-Identifier: GPL-2.0-or-later
"""Pinning one guest and putting one back: the only place where vm_pinning changes a guest.

Order matters for a `kill -9` between any two calls: the original is on disk before, the tag names
what will be set before it is set, and on the way back it is changed last. Whatever is there and
equals the tag, what was set, or what was found, is ours; all else is somebody else's and stays.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from tuned_virt.core.journal import Journal
from tuned_virt.core.plan import Change
from tuned_virt.guests.tracker import TrackedGuest
from tuned_virt.kernel import cpuset
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.libvirt_api import guest_pins as libvirt
from tuned_virt.libvirt_api import placement_tag
from tuned_virt.libvirt_api.connection import Connection, Domain
from tuned_virt.libvirt_api.errors import GuestGone
from tuned_virt.model import topology
from tuned_virt.model.guest import printable, qemu_threads
from tuned_virt.model.pins import EMULATOR, MEMORY, Part, Pins
from tuned_virt.placement import Placement
from tuned_virt.plugins.vm_pinning.original import PLUGIN, OriginalPins

log = logging.getLogger("tuned")

ONLINE = "/sys/devices/system/cpu/online"

Refused = Mapping[str, str]
"""What libvirt refused → why."""


def starts_pinned(fs: KernelFS, seen: TrackedGuest) -> bool:
    """Whether a guest has started with pins of ours from its configuration."""
    ours, _ = placement_tag.read(seen.active.xml)
    return bool(set(ours.vcpus.values()) - {fs.read_optional(ONLINE)})


def found(fs: KernelFS, link: Connection, seen: TrackedGuest, uri: str) -> OriginalPins:
    """A guest as it is, to be kept; pins of ours that its XML brought along are none.

    Raises LibvirtError, and KernelFileError where the kernel does not tell now.
    """
    active = seen.active
    ours, present = placement_tag.read(active.xml)
    online = fs.read_optional(ONLINE) or ""
    before = {
        **{target: cpus for target, cpus in present.items() if target.part is Part.IOTHREAD},
        **_now(fs, link, seen),
        MEMORY: present.get(MEMORY, ""),
        **dict.fromkeys(ours, online),
    }
    if MEMORY in ours:
        del before[MEMORY]
    nodes = cpuset.text(topology.memory_nodes(fs))
    run = (active.uuid, active.name, active.id, seen.pid, seen.start)
    return OriginalPins(uri, *run, Pins.of(before.items()), nodes)


def _now(fs: KernelFS, link: Connection, seen: TrackedGuest) -> Pins:
    """Where its threads are, by the kernel, or where that does not show them by libvirt."""
    told = qemu_threads.pins(qemu_threads.affinity(fs, seen.pid)) if seen.pid else Pins()
    return told if told.vcpus else libvirt.configured(link, seen.active)


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
        if not refused:
            refused = dict(self._confine(seen, pins.emulator))
        if not refused:
            self._write(seen.active, "original", words(pins), placement.why)
        return refused

    def adopt(
        self, link: Connection, seen: TrackedGuest, original: OriginalPins, before: Pins
    ) -> Domain:
        """Tag what is ours after a `kill -9` in the middle of pinning or putting back."""
        tagged, present = placement_tag.read(seen.active.xml)
        ours = present.among([tagged, before, original.back(present)])
        if ours == tagged:
            return seen.active
        libvirt.tag(link, seen.active, ours)
        return link.reread(seen.active)

    def put_back(
        self, link: Connection, seen: TrackedGuest, original: OriginalPins, before: Pins
    ) -> Refused:
        """Set what is ours to what was found, and keep it tagged as ours: it cannot be removed.

        `before` was set last. What does not succeed can be tried again.
        """
        active = link.reread(seen.active)
        tagged, present = placement_tag.read(active.xml)
        ours = present.among([tagged, before])
        back = original.back(ours)
        refused = dict(libvirt.apply(link, active, back))
        unchanged = present.among([original.back(present)])
        was_set = EMULATOR in tagged.over(before) and EMULATOR in ours.over(unchanged)
        if seen.pid and was_set:
            refused.update(original.confine(self._fs, only=[EMULATOR]))
        if not refused:
            refused = dict(libvirt.tag(link, active, back.over(unchanged)))
            if ours:
                self._write(active, words(ours), "original", "the profile no longer applies to it")
        link.reread(active)  # in between, a pin of its owner's and one of ours look alike
        return refused

    def _confine(self, seen: TrackedGuest, cpus: str) -> Refused:
        """Bring along emulator threads that libvirt misses where it has no cpuset controller.

        Those that the kernel refuses are said by verify.
        """
        if not (seen.pid and cpus):
            return {}
        try:
            told = qemu_threads.affinity(self._fs, seen.pid).get(EMULATOR, {})
        except KernelFileError as error:
            return {str(EMULATOR): str(error)}
        qemu_threads.confine((thread for thread, now in told.items() if now != cpus), cpus)
        return {}

    def _write(self, active: Domain, before: str, after: str, why: str) -> None:
        name = printable(active.name)
        change = Change(f"{name} pins", f"libvirt guest {active.uuid}", before, after, why)
        self._journal.add(PLUGIN, change)
        log.info("%s: guest %s: %s (%s)", PLUGIN, name, after, why)


def words(pins: Pins) -> str:
    """Pins in one line: vCPUs on the same CPUs together."""
    groups: dict[tuple[Part, str], list[int]] = {}
    for target, cpus in pins.items():
        groups.setdefault((target.part, cpus), []).append(target.number)
    return ", ".join(_group(*pin, numbers) for pin, numbers in groups.items()) or "nothing"


def _group(part: Part, cpus: str, numbers: list[int]) -> str:
    if part is Part.MEMORY:
        mode, _, nodes = cpus.partition("=")
        return f"memory {mode} on node {nodes}"
    which = "" if part is Part.EMULATOR else f" {cpuset.text(numbers)}"
    return f"{part.value}{which} on {cpus}"


__all__ = ["GuestGone", "Pinner", "Refused", "found", "starts_pinned", "words"]
