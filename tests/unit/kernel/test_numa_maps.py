# SPDX-License-Identifier: GPL-2.0-or-later
"""A process's memory by node, read from a made-up /proc."""

from __future__ import annotations

from pathlib import Path

from tuned_virt.kernel import numa_maps
from tuned_virt.kernel.files import KernelFS

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


def test_memory_by_node(tmp_path: Path) -> None:
    folder = tmp_path / "proc/100"
    folder.mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    fs = KernelFS(tmp_path)
    areas = numa_maps.read(fs, 100)
    assert [area.huge for area in areas] == [False, True]
    assert numa_maps.by_node(areas) == {0: 800, 1: 400 + 4096}
    assert numa_maps.share({0: 30, 1: 10}, frozenset({0})) == 0.75
    assert numa_maps.share({}, frozenset({0})) is None
    assert numa_maps.locked(fs, 100) == 12
