# SPDX-License-Identifier: GPL-2.0-or-later
"""Loop devices of a test's own: a hundred real queues on any machine, with no disk behind them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LOOP_CTL_ADD, LOOP_CTL_REMOVE = 0x4C80, 0x4C81
LOOP_SET_FD, LOOP_CLR_FD = 0x4C00, 0x4C01
"""ioctls of /dev/loop-control and /dev/loopN (linux/loop.h)."""

FIRST = 4000
"""Number of the first one: far from those of the machine."""

REMOVED_AT_ONCE = 64
"""The kernel takes some 50 ms for each, and waits most of that."""


def queue(name: str) -> Path:
    """A device's queue in sysfs."""
    return Path("/sys/block") / name / "queue"


def scheduler(name: str) -> str:
    """A device's active scheduler."""
    return re.sub(r".*\[(.+)].*", r"\1", (queue(name) / "scheduler").read_text().strip())


def set_all(names: Sequence[str], word: str) -> None:
    """Set the scheduler of many devices at once."""
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: (queue(name) / "scheduler").write_text(word), names))


def add(number: int) -> str:
    """A new device; its name."""
    with open("/dev/loop-control", "rb") as control:
        fcntl.ioctl(control, LOOP_CTL_ADD, number)
    return f"loop{number}"


def remove(name: str) -> None:
    """Away with it."""
    with open("/dev/loop-control", "rb") as control:
        fcntl.ioctl(control, LOOP_CTL_REMOVE, int(name.removeprefix("loop")))


def node(name: str) -> Path:
    """Its node, which nobody makes where udevd does not run."""
    path = Path("/dev") / name
    if not path.exists():
        major, minor = (Path("/sys/block") / name / "dev").read_text().split(":")
        os.mknod(path, 0o600 | 0o060000, os.makedev(int(major), int(minor)))
    return path


@contextlib.contextmanager
def loops(count: int, first: int = FIRST) -> Iterator[list[str]]:
    """So many devices, gone afterwards."""
    names: list[str] = []
    try:
        for number in range(first, first + count):
            names.append(add(number))
        yield names
    finally:
        with ThreadPoolExecutor(REMOVED_AT_ONCE) as pool:
            list(pool.map(_remove_all_of, names))


def _remove_all_of(name: str) -> None:
    with contextlib.suppress(OSError):
        remove(name)
    with contextlib.suppress(OSError):
        (Path("/dev") / name).unlink()


@contextlib.contextmanager
def attached(name: str, file: Path | None = None) -> Iterator[Path]:
    """A device with a file behind it, else an empty one of 16 MiB; its node."""
    with contextlib.ExitStack() as stack:
        if file is None:
            made = stack.enter_context(tempfile.NamedTemporaryFile(prefix="loop-"))
            made.truncate(1 << 24)
            file = Path(made.name)
        path = node(name)
        device = stack.enter_context(open(path, "rb+", buffering=0))
        backing = stack.enter_context(open(file, "rb+", buffering=0))
        fcntl.ioctl(device, LOOP_SET_FD, backing.fileno())
        stack.callback(fcntl.ioctl, device, LOOP_CLR_FD, 0)
        yield path
