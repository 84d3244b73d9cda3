# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt hugepages` on real pools of four nodes, with a process that maps some of them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.sandbox import PYTHON
from tests.vm.kernel import NODES

MAP_HUGETLB = 0x40000
HOLD = f"""
import mmap, sys
memory = mmap.mmap(-1, 6 << 20, flags={MAP_HUGETLB} | mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(3):
    memory[page << 21] = 1
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def pool(node: int, pages: int) -> Iterator[None]:
    """So many pages of 2 MiB on a node."""
    file = NODES / f"node{node}/hugepages/hugepages-2048kB/nr_hugepages"
    before = file.read_text()
    file.write_text(str(pages))
    assert int(file.read_text()) == pages
    try:
        yield
    finally:
        file.write_text(before)


@contextlib.contextmanager
def guest() -> Iterator[int]:
    """A process that is QEMU's by its program and maps three pages of 2 MiB; its pid."""
    with tempfile.TemporaryDirectory() as folder:
        program = shutil.copy(os.path.realpath(PYTHON), f"{folder}/qemu-system-x86_64")
        with subprocess.Popen(
            [program, "-c", HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONHOME": "/usr"},
        ) as holder:
            assert holder.stdin and holder.stdout
            assert holder.stdout.readline() == b"ready\n"
            yield holder.pid
            holder.stdin.close()


def told() -> dict[str, Any]:
    done = subprocess.run(
        ["tuned-virt", "hugepages", "--json"], stdout=subprocess.PIPE, text=True, check=True
    )
    content: dict[str, Any] = json.loads(done.stdout)
    return content


@pytest.mark.usefixtures("product")
def test_pools_and_their_users_by_node() -> None:
    with pool(1, 5), pool(3, 2):
        with guest() as pid:
            content = told()
            [user] = [user for user in content["guests"] if user["pid"] == pid]
            assert sum(place["pages"] for place in user["used"]) == 3
            assert {place["size"] for place in user["used"]} == {"2M"}
            assert user["mapped_mib"] == 6
            taken = {place["node"]: place["pages"] for place in user["used"]}
        pools = {p["node"]: p for p in content["pools"] if p["size"] == "2M"}
        for node, pages in ((1, 5), (3, 2)):
            assert pools[node]["total"] == pools[node]["persistent"] == pages
            assert pools[node]["free"] == pages - taken.get(node, 0)
            assert pools[node]["mib"] == 2 * pages
        assert subprocess.run(["tuned-virt", "hugepages"], check=True).returncode == 0
