# SPDX-License-Identifier: GPL-2.0-or-later
"""What the booted machine lacks before daemons can run in it: folders, a D-Bus, the product."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

NUMAD = Path("/usr/bin/numad")
"""Where Debian's libvirt looks for it."""

OUR_NUMAD = Path(__file__).resolve().parents[2] / "scripts/numad"
"""`make install` leaves it out: it is of a package that conflicts with Debian's numad."""

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


def put_numad(program: Path | None) -> None:
    """Have this program, or none, where libvirt looks for numad."""
    NUMAD.unlink(missing_ok=True)
    if program:
        shutil.copy(program, NUMAD)
        NUMAD.chmod(0o755)
