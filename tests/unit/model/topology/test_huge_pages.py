# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.topology import huge_pages
from tuned_virt.model.topology.huge_pages import Pool


def test_the_pools_of_a_node_and_of_a_machine(tmp_path: Path) -> None:
    fs = KernelFS(tmp_path)
    for node, size, counts in ((1, 2048, "7 3 1"), (1, 1 << 20, "0 0 0"), (None, 2048, "9 4 1")):
        pool = tmp_path / huge_pages.folder(node, size).lstrip("/")
        pool.mkdir(parents=True)
        for name, count in zip(("nr", "free", "surplus"), counts.split()):
            (pool / f"{name}_hugepages").write_text(f"{count}\n")
    (tmp_path / "sys/kernel/mm/hugepages/README").mkdir()
    assert huge_pages.pools_of(fs, 1) == [Pool(1, 2048, 7, 3, 1), Pool(1, 1 << 20, 0, 0, 0)]
    assert huge_pages.pools_of(fs, None) == [Pool(0, 2048, 9, 4, 1)]
    assert huge_pages.pools_of(fs, 0) == []
