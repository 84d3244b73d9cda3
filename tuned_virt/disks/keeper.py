"""Follows the machine's disks and guests, and has the policy applied again when they change.

A disk that is added or removed resets its queue's scheduler. udev's rules may set one after we did:
no event tells of that, but udev passes its events on once its rules have run, so a look after them
sees what they did.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from tuned_virt.engine import Finding, Result

try:
    import pyudev  # type: ignore[import-untyped]
except ImportError:
    pyudev = None

log = logging.getLogger("tuned")

UDEV_RUNS = "/run/udev/control"
"""There while systemd-udevd runs; without it events come from the kernel alone."""

SETTLE = 0.5
"""Seconds without an event after which disks are looked at."""

LONGEST = 5.0
"""Seconds of events after which they are looked at anyhow."""

RETRY = 30.0
"""Seconds to the next look while something could not be set."""


class Follower(Protocol):
    """What tells of guests."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End, at once."""


class Watch:
    """Waits for events in a thread, and calls back once they have settled."""

    def __init__(self, again: Callable[[], None], settle: float = SETTLE) -> None:
        self._again = again
        self._settle = settle
        self._events: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._observer: Any = None
        self._followers: list[Follower] = []
        self._trouble = ""

    def follow(self, follower: Follower) -> None:
        """Have something started and stopped with this, that calls `wake`."""
        self._followers.append(follower)

    def start(self) -> None:
        """Begin to watch."""
        threading.Thread(target=self._work, name="virt-disks-watch", daemon=True).start()
        self._observe()
        for follower in self._followers:
            follower.start()

    def stop(self) -> None:
        """End; nothing is called back afterwards but what has begun."""
        self._events.put(None)
        if self._observer is not None:
            self._observer.send_stop()
        for follower in self._followers:
            follower.stop()

    def findings(self) -> Iterator[Finding]:
        """That disks are not followed, where they are not."""
        if self._trouble:
            yield Finding(Result.NOTE, f"blk_elevator_virt: {self._trouble}")

    def wake(self, event: str) -> None:
        """Look again, soon."""
        self._events.put(event)

    def _observe(self) -> None:
        if pyudev is None:
            self._trouble = "disks added later are not set: python3-pyudev is not installed"
        else:
            try:
                self._observer = observer(self.wake)
                self._observer.start()
            except (OSError, ImportError) as error:
                self._trouble = f"disks added later are not set: udev cannot be followed: {error}"
        if self._trouble:
            log.warning("blk_elevator_virt: %s", self._trouble)

    def _work(self) -> None:
        while True:
            event = self._events.get()
            if event is None or not self._settled():
                return
            log.debug("blk_elevator_virt: looking again: %s", event)
            self._again()

    def _settled(self) -> bool:
        """Wait until no event comes for a while; False once it is to end."""
        for _ in range(max(1, int(LONGEST / self._settle))):
            try:
                event = self._events.get(timeout=self._settle)
            except queue.Empty:
                return True
            with contextlib.suppress(queue.Empty):
                while event is not None:
                    event = self._events.get_nowait()
            if event is None:
                return False
        return True


def observer(wake: Callable[[str], None]) -> Any:
    """A thread that tells of block devices that come, go or change. Raises OSError."""
    source = "udev" if os.path.exists(UDEV_RUNS) else "kernel"
    monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source)
    monitor.filter_by("block", "disk")

    def tell(device: Any) -> None:
        wake(f"{device.action} {device.sys_name}")

    return pyudev.MonitorObserver(monitor, callback=tell, name="virt-disks-udev")


def udev_properties(name: str) -> dict[str, str]:
    """udev's properties of a disk by its name in sysfs; none where udev is not to be asked."""
    if pyudev is None:
        return {}
    try:
        device = pyudev.Devices.from_name(pyudev.Context(), "block", name)
        return dict(device.properties.items())
    except (pyudev.DeviceNotFoundError, OSError):
        return {}
