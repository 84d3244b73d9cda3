# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's events of memory that comes online or goes, and of NUMA nodes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

try:
    import pyudev  # type: ignore[import-untyped]
except ImportError:
    pyudev = None

log = logging.getLogger("tuned")

SUBSYSTEMS = ("memory", "node")
"""Of blocks of memory (Documentation/admin-guide/mm/memory-hotplug.rst), and of nodes."""


class NodeEvents:
    """Tells of memory that comes and goes. `trouble` says why it cannot."""

    def __init__(self) -> None:
        self._observer: Any = None
        self.trouble = ""

    def start(self, changed: Callable[[str], None]) -> None:
        """Begin to listen."""
        if pyudev is None:
            self.trouble = "memory added later is not followed: python3-pyudev is not installed"
        else:
            try:
                self._observer = observer(changed)
                self._observer.start()
            except (OSError, ImportError) as error:
                self._observer = None  # one that has not started cannot be stopped
                self.trouble = f"memory added later is not followed: no events from udev: {error}"
        if self.trouble:
            log.warning("hugepages_numa: %s", self.trouble)

    def stop(self) -> None:
        """Listen no more."""
        if self._observer is not None:
            self._observer.send_stop()


def observer(wake: Callable[[str], None]) -> Any:
    """A thread that tells of memory and nodes, from the kernel: no rule of udev's matters here.

    Raises OSError.
    """
    monitor = pyudev.Monitor.from_netlink(pyudev.Context(), "kernel")
    for subsystem in SUBSYSTEMS:
        monitor.filter_by(subsystem)

    def tell(device: Any) -> None:
        wake(f"{device.action} {device.sys_name}")

    return pyudev.MonitorObserver(monitor, callback=tell, name="virt-hugepages-udev")
