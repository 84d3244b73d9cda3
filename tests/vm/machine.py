# SPDX-License-Identifier: GPL-2.0-or-later
"""What the booted machine lacks before daemons can run in it: folders, a D-Bus, the product."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

PREPARED = ("/run/dbus", "/run/tuned", "/var/log/tuned", "/var/log/libvirt/qemu")


@contextlib.contextmanager
def system_bus() -> Iterator[Path]:
    """Socket of a system D-Bus that runs for the length of the with block."""
    for folder in PREPARED:
        Path(folder).mkdir(parents=True, exist_ok=True)
    started = subprocess.run(
        ["dbus-daemon", "--system", "--fork", "--print-pid"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    yield Path("/run/dbus/system_bus_socket")
    os.kill(int(started.stdout), signal.SIGTERM)


def install_product() -> None:
    """This checkout over the machine's root; the machine forgets it when it ends."""
    staged = Path(os.environ["TUNED_VIRT_PRODUCT"])
    subprocess.run(["cp", "--recursive", *staged.iterdir(), "/"], check=True)
