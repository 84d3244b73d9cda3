# SPDX-License-Identifier: GPL-2.0-or-later
"""udev's events of block devices, and its properties of them.

A disk that is added or removed resets its queue's scheduler. udev's rules may set one after we did:
no event tells of that, but udev passes its events on once its rules have run, so a look after them
sees what they did.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

try:
    import pyudev  # type: ignore[import-untyped]
except ImportError:
    pyudev = None

log = logging.getLogger("tuned")

RUNS = "/run/udev/control"
"""There while systemd-udevd runs; without it events come from the kernel alone."""

NVME = "nvme"
"""Subsystem of NVMe controllers."""

SCANNED = 5.0
"""Seconds after an event of a controller until it is looked at once more: it finds its namespaces
meanwhile."""


class DiskEvents:
    """Tells of disks that come, go or change. `trouble` says why it cannot."""

    def __init__(self) -> None:
        self._observer: Any = None
        self.trouble = ""

    def start(self, changed: Callable[[str], None]) -> None:
        """Begin to listen."""
        if pyudev is None:
            self.trouble = "disks added later are not set: python3-pyudev is not installed"
        else:
            try:
                self._observer = observer(changed)
                self._observer.start()
            except (OSError, ImportError) as error:
                self.trouble = f"disks added later are not set: udev cannot be followed: {error}"
        if self.trouble:
            log.warning("blk_elevator_virt: %s", self.trouble)

    def stop(self) -> None:
        """Listen no more."""
        if self._observer is not None:
            self._observer.send_stop()


def observer(wake: Callable[[str], None]) -> Any:
    """A thread that tells of block devices that come, go or change. Raises OSError.

    The paths of an NVMe multipath head are hidden block devices, of which the kernel tells nobody
    (block/genhd.c, device_add_disk); of their controllers it does.
    """
    source = "udev" if os.path.exists(RUNS) else "kernel"
    monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source)
    monitor.filter_by("block", "disk")
    monitor.filter_by(NVME)

    def tell(device: Any) -> None:
        event = f"{device.action} {device.sys_name}"
        wake(event)
        if device.subsystem == NVME:
            later = threading.Timer(SCANNED, wake, [event])
            later.daemon = True
            later.start()

    return pyudev.MonitorObserver(monitor, callback=tell, name="virt-disks-udev")


def properties(name: str) -> dict[str, str]:
    """udev's properties of a disk by its name in sysfs; none where udev is not to be asked."""
    if pyudev is None:
        return {}
    try:
        device = pyudev.Devices.from_name(pyudev.Context(), "block", name)
        return dict(device.properties.items())
    except (pyudev.DeviceNotFoundError, OSError):
        return {}
