# SPDX-License-Identifier: GPL-2.0-or-later
"""A process's memory by node, read from a made-up /proc."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tuned_virt.kernel import numa_maps
from tuned_virt.kernel.files import KernelFileError, KernelFS

FILES = {
    "maps": (
        "7f0000000000-7f0004000000 rw-p 00000000 00:00 0\n"
        "7f1000000000-7f1004000000 rw-s 00000000 00:01 9 /dev/hugepages/x\n"
        "7f2000000000-7f2000001000 rw-p 00000000 00:00 0 [heap]\n"
    ),
    "numa_maps": (
        "7f0000000000 default anon=300 dirty=300 N0=200 N1=100 kernelpagesize_kB=4\n"
        "7f1000000000 default file=/dev/hugepages/x huge N1=2 kernelpagesize_kB=2048\n"
        "7f2000000000 default heap anon=1 N0=1 kernelpagesize_kB=4\n"
    ),
    "status": "VmLck:\t 12 kB\nVmPin:\t 0 kB\n",
}


def process(root: Path, files: Mapping[str, str]) -> KernelFS:
    folder = root / "proc/100"
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return KernelFS(root)


def test_memory_by_node(tmp_path: Path) -> None:
    fs = process(tmp_path, FILES)
    areas = numa_maps.read(fs, 100)
    assert [area.huge for area in areas] == [False, True]
    assert numa_maps.by_node(areas) == {0: 800, 1: 400 + 4096}
    assert numa_maps.share({0: 30, 1: 10}, frozenset({0})) == 0.75
    assert numa_maps.share({}, frozenset({0})) is None
    assert numa_maps.locked(fs, 100) == 12


RAM = "rw-s 00000000 00:2f 41   "


@pytest.mark.parametrize(
    "mapping",
    [
        RAM + "/dev/hugepages/libvirt/qemu/1-h2/qemu_back_mem.pc.ram.abcdef (deleted)",
        RAM + "/dev/hugepages1G/libvirt/qemu/2-db/qemu_back_mem._objects_ram-node0.Xy (deleted)",
        "rw-p 00000000 00:2f 42 /dev/hugepages/libvirt/qemu/1-h2/qemu_back_mem.pc.ram.Q (deleted)",
        RAM + "/var/lib/libvirt/qemu/ram/1-h2/pc.ram",
        RAM + "/memfd:pc.ram (deleted)",
        RAM + "/memfd:memory-backend-memfd (deleted)",
        RAM + "/dev/shm/ram with spaces",
        RAM + "/dev/dax0.0",
        "rw-p 00000000 00:00 0",
        "rw-p 00000000 00:00 0 [anon:ram]",
    ],
)
def test_what_backs_a_guests_memory(tmp_path: Path, mapping: str) -> None:
    """As libvirt 9 and QEMU name it: huge pages, <source type='file'/>, memfd, DAX."""
    maps = f"7f0000000000-7f0002000000 {mapping}\n"
    lines = "7f0000000000 default file=x huge dirty=16 N1=16 kernelpagesize_kB=2048\n"
    fs = process(tmp_path, {"maps": maps, "numa_maps": lines})
    assert numa_maps.by_node(numa_maps.read(fs, 100)) == {1: 32768}


PROGRAM = """\
555500000000-555500400000 r--p 00000000 fe:00 7 /opt/qemu 9/bin/qemu-system-x86_64
555500400000-555500c00000 r-xp 00400000 fe:00 7 /opt/qemu 9/bin/qemu-system-x86_64
555500c00000-555501400000 rw-p 00c00000 fe:00 7 /opt/qemu 9/bin/qemu-system-x86_64
555502000000-555503000000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0040000000 rwxp 00000000 00:00 0
7f1000000000-7f1001000000 r--s 00000000 fe:00 8 /usr/share/OVMF/OVMF_CODE.fd
7f2000000000-7f2000001000 rw-p 00000000 00:00 0
"""


def test_what_is_qemus_own(tmp_path: Path) -> None:
    """Its program, heap and firmware image, and the code that TCG makes, are no guest's memory."""
    starts = [line.partition("-")[0] for line in PROGRAM.splitlines()]
    lines = "".join(f"{start} default anon=9 N0=9 kernelpagesize_kB=4\n" for start in starts)
    fs = process(tmp_path, {"maps": PROGRAM, "numa_maps": lines})
    assert numa_maps.read(fs, 100) == []


@pytest.mark.parametrize("name", ["maps", "numa_maps"])
@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_what_cannot_be_read_is_not_no_memory(
    name: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = process(tmp_path, FILES)
    real = os.open

    def opened(path: str, *how: Any) -> int:
        if path.endswith(f"/100/{name}"):
            raise OSError(code, os.strerror(code))
        return real(path, *how)

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(KernelFileError, match=f"cannot read /proc/100/{name}: {os.strerror(code)}"):
        numa_maps.read(fs, 100)
    assert numa_maps.read(fs, 101) == [], "it has gone"


@pytest.mark.parametrize("line", ["", "x", "-1 N0=1 kernelpagesize_kB=4", "7f0000000000"])
def test_lines_that_tell_nothing_are_passed_over(line: str, tmp_path: Path) -> None:
    text = f"{line}\n{FILES['numa_maps']}{line}\n"
    fs = process(tmp_path, {**FILES, "numa_maps": text, "maps": f"{line}\n{FILES['maps']}"})
    assert numa_maps.by_node(numa_maps.read(fs, 100)) == {0: 800, 1: 400 + 4096}
