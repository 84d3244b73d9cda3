# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests that use this machine's disks: running ones by their processes, defined by libvirt."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from tuned_virt.core.guest_source import GuestSource
from tuned_virt.kernel import systemd
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api.guest_disks import GuestDisks
from tuned_virt.model.guest import printable, qemu_process
from tuned_virt.plugins.blk_elevator_virt import backing, state


class DiskUsers:
    """Finds guests' disks again and again; what is known of a process is read once."""

    def __init__(self, fs: KernelFS) -> None:
        self._fs = fs
        self._processes = qemu_process.QemuProcesses(fs)
        self._backing = backing.BackingDevices(fs)
        self._one_at_a_time = threading.Lock()

    def of(
        self, disks: Mapping[str, state.Disk], libvirt: GuestSource[GuestDisks]
    ) -> tuple[dict[str, tuple[str, ...]], str]:
        """Guests' names by disk whose queue orders their requests, and why some are not known."""
        with self._one_at_a_time:
            labels = self._devices(libvirt.guests or {})
        found: dict[str, set[str]] = {}
        for label, devices in labels.items():
            for disk in backing.queues(devices, disks, self._fs, self._backing):
                found.setdefault(disk, set()).add(label)
        unsettled = ""
        if libvirt.guests is None and systemd.runs_guests(self._fs):  # else there are none to know
            unsettled = f"defined guests are unknown: {libvirt.unavailable}"
        return {disk: tuple(sorted(names)) for disk, names in found.items()}, unsettled

    def _devices(self, defined: Mapping[str, GuestDisks]) -> dict[str, set[str]]:
        """Block devices by guest's name."""
        labels: dict[str, set[str]] = {}
        for guest in self._processes.guests(time.monotonic()):
            if guest.uuid and guest.uuid in defined:
                continue  # libvirt names its disks, for less than its open files cost
            label = guest.name or f"process {guest.pid}"
            labels.setdefault(label, set()).update(self._backing.of_process(guest.pid))
        paths = {guest.uuid: guest.paths for guest in defined.values() if guest.paths}
        for uuid, devices in self._backing.of_paths(paths).items():
            labels.setdefault(printable(defined[uuid].name), set()).update(devices)
        return labels
