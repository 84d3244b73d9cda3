# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests that use this machine's disks: running ones by their processes, defined by libvirt."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping

from tuned_virt.core.guest_source import GuestSource
from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel import systemd
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api.guest_disks import GuestDisks
from tuned_virt.model.guest import printable, qemu_process
from tuned_virt.plugins.blk_elevator_virt import backing, state
from tuned_virt.plugins.blk_elevator_virt.storage import Storage, on_devices, together

Names = Mapping[str, tuple[str, ...]]
"""Guests' names by what they use."""


@dataclass(frozen=True)
class GuestStorage:
    """What guests use: guests' names by each.

    disks       whose queues order their requests
    network     on other machines, as `Storage` has it
    unfollowed  what is not followed to a disk, with the reason
    unsettled   why it is not known yet what some guests use, "" once it is
    """

    disks: Names = field(default_factory=dict)
    network: Names = field(default_factory=dict)
    unfollowed: Names = field(default_factory=dict)
    unsettled: str = ""


class DiskUsers:
    """Finds guests' disks again and again; what is known of a process is read once."""

    def __init__(self, fs: KernelFS) -> None:
        self._fs = fs
        self._processes = qemu_process.QemuProcesses(fs)
        self._backing = backing.BackingDevices(fs)
        self._one_at_a_time = threading.Lock()

    def of(self, disks: Mapping[str, state.Disk], libvirt: GuestSource[GuestDisks]) -> GuestStorage:
        """What guests use now."""
        with self._one_at_a_time:
            self._backing.look_again()
            found = self._on_disks(self._storage(libvirt.guests or {}), disks)
        return GuestStorage(
            _by_use((guest, one.devices) for guest, one in found.items()),
            _by_use((guest, one.network) for guest, one in found.items()),
            _by_use((guest, one.unfollowed) for guest, one in found.items()),
            self._unsettled(libvirt) or _unanswered(found),
        )

    def _on_disks(
        self, storage: Mapping[str, Storage], disks: Mapping[str, state.Disk]
    ) -> dict[str, Storage]:
        """The same with disks in place of devices; each device, which guests share, is followed
        once."""
        devices = {name for one in storage.values() for name in one.devices}
        below = {name: self._backing.queues(on_devices([name]), disks) for name in devices}
        return {
            guest: together([one.elsewhere, *(below[name] for name in one.devices)])
            for guest, one in storage.items()
        }

    def _unsettled(self, libvirt: GuestSource[GuestDisks]) -> str:
        if libvirt.guests is None and systemd.runs_guests(self._fs):  # else there are none to know
            return f"defined guests are unknown: {libvirt.unavailable}"
        return ""

    def _storage(self, defined: Mapping[str, GuestDisks]) -> dict[str, Storage]:
        """What each guest's disks are on, by the guest's name."""
        parts: dict[str, list[Storage]] = {}
        for guest in self._processes.guests(time.monotonic()):
            if guest.uuid and guest.uuid in defined:
                continue  # libvirt names its disks, for less than its open files cost
            label = guest.name or f"process {guest.pid}"
            parts.setdefault(label, []).append(self._backing.of_process(guest.pid))
        paths = {guest.uuid: guest.paths for guest in defined.values() if guest.paths}
        for uuid, storage in self._backing.of_paths(paths).items():
            parts.setdefault(printable(defined[uuid].name), []).append(storage)
        for known in defined.values():
            parts.setdefault(printable(known.name), []).append(_elsewhere(known))
        return {label: together(storage) for label, storage in parts.items()}


def _elsewhere(guest: GuestDisks) -> Storage:
    """What libvirt names that has no path here."""
    volumes = (f"{one}: libvirt does not tell its path" for one in guest.unresolved)
    return Storage(
        network=frozenset(map(printable, guest.network)),
        unfollowed=frozenset(map(printable, (*guest.unknown, *volumes))),
    )


def _unanswered(found: Mapping[str, Storage]) -> str:
    """Why it is not known what the first of some guests uses, "" where all is known."""
    reasons = [f"{guest}: {why}" for guest, one in found.items() for why in one.unanswered]
    return min(reasons, default="")


def _by_use(found: Iterable[tuple[str, Iterable[str]]]) -> dict[str, tuple[str, ...]]:
    names: dict[str, set[str]] = {}
    for guest, uses in found:
        for use in uses:
            names.setdefault(use, set()).add(guest)
    return {use: tuple(sorted(guests)) for use, guests in sorted(names.items())}
