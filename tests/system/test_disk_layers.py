# SPDX-License-Identifier: GPL-2.0-or-later
"""From files on real file systems to the queues below; tests/vm has what this kernel has not."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopdev import attached, loops
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins.blk_elevator_virt import state
from tuned_virt.plugins.blk_elevator_virt.backing import BackingDevices

SMALLEST = 128 << 20
"""Bytes of a btrfs of two devices."""


@pytest.fixture(scope="session", autouse=True)
def ksm_stopped() -> None:
    """Nothing here is about KSM."""


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A mounted btrfs, and the two loop devices that it is made of."""
    files = [tmp_path / name for name in ("one", "two")]
    for file in files:
        with open(file, "wb") as image:
            image.truncate(SMALLEST)
    point = tmp_path / "mounted"
    point.mkdir()
    with contextlib.ExitStack() as stack:
        names = stack.enter_context(loops(2))
        first, second = (
            stack.enter_context(attached(name, file)) for name, file in zip(names, files)
        )
        subprocess.run(["mkfs.btrfs", "-q", "-m", "raid1", first, second], check=True)
        subprocess.run(["mount", "-t", "btrfs", "-o", f"device={second}", first, point], check=True)
        stack.callback(lambda: subprocess.run(["umount", point], check=True))
        yield point, names


def test_a_file_on_a_btrfs_of_two_devices(btrfs: tuple[Path, list[str]]) -> None:
    """mountinfo names one device; and the images of both lie on one disk of this machine."""
    point, names = btrfs
    image = point / "image"
    image.write_bytes(b"x")
    fs = KernelFS()
    backing = BackingDevices(fs)
    (found,) = backing.of_paths({"guest": (str(image),)}).values()
    assert found.devices == set(names)
    disks = state.DiskReader(fs).read()
    below = backing.of_paths({"images": (str(point.parent / "one"),)})["images"]
    assert backing.queues(found, disks).devices == {*names, *backing.queues(below, disks).devices}
