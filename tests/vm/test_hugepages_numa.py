# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin `hugepages_numa` on real pools of four nodes; node 3 has room for pages of 1 GiB."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox import wait_for
from tests.vm.daemon import Tuned, own_profile
from tests.vm.kernel import NODES, State, changed
from tests.vm.test_hugepages import guest
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals

M2, G1 = 2048, 1 << 20
SECTION = "hugepages_numa"
ASYMMETRIC = {0: 16, 1: 8, 2: 24, 3: 40}
SPARE = 4
"""A node without memory until some is put online."""
BOOTED = 1
"""Pages of 1 GiB on node 3 by the kernel's command line."""


def pool(node: int, size: int) -> Path:
    return NODES / f"node{node}/hugepages/hugepages-{size}kB"


def counts(node: int, size: int = M2) -> tuple[int, int]:
    """Persistent and surplus pages."""
    total, surplus = (
        int((pool(node, size) / f"{name}_hugepages").read_text()) for name in ("nr", "surplus")
    )
    return total - surplus, surplus


def persistent(size: int = M2) -> list[int]:
    return [counts(node, size)[0] for node in range(4)]


@pytest.fixture
def asymmetric(tuned: Tuned) -> Iterator[None]:
    """Pools as an administrator may have made them; gone afterwards."""
    for node, pages in ASYMMETRIC.items():
        (pool(node, M2) / "nr_hugepages").write_text(str(pages))
    assert persistent() == list(ASYMMETRIC.values())
    yield
    if tuned.running:
        tuned.off()
    for node in ASYMMETRIC:
        (pool(node, M2) / "nr_hugepages").write_text("0")


def use(tuned: Tuned, **options: str) -> tuple[bool, str]:
    """Switch to a profile with these options; verify once all is applied."""
    tuned.switch(own_profile("huge", SECTION, **options))
    return settled(tuned)


def off(tuned: Tuned) -> None:
    """tuned-adm off, and what it leaves to go on by itself."""
    tuned.off()
    wait_for("all put back", lambda: SECTION not in Originals().all(), 60)


def settled(tuned: Tuned) -> tuple[bool, str]:
    verified, lines = tuned.verify()
    wait_for("the plan carried out", lambda: "still being applied" not in tuned.verify()[1], 60)
    return (verified, lines) if "still being applied" not in lines else tuned.verify()


@pytest.mark.usefixtures("asymmetric")
def test_each_node_has_what_is_asked_for_it_and_afterwards_what_it_had(tuned: Tuned) -> None:
    verified, lines = use(tuned, pages_2M="0:40,1:0,2:3,3:128")
    assert verified, lines
    assert persistent() == [40, 0, 3, 128]
    assert "passed: 'hugepages_numa pages_2M node3' = '128'" in lines
    off(tuned)
    assert persistent() == list(ASYMMETRIC.values())


@pytest.mark.usefixtures("asymmetric")
def test_originals_survive_a_kill(tuned: Tuned) -> None:
    assert use(tuned, pages_2M="all:32")[0]
    tuned.kill9()
    tuned.start()
    assert settled(tuned)[0]
    off(tuned)
    assert persistent() == list(ASYMMETRIC.values())


@pytest.mark.usefixtures("asymmetric")
def test_killed_in_the_middle_of_an_allocation(tuned: Tuned) -> None:
    name = own_profile("huge", SECTION, pages_2M="3:1800")

    def switch() -> None:
        with contextlib.suppress(Exception):  # the daemon dies under the call
            tuned.call("switch_profile", name)
            tuned.call("start")

    caller = threading.Thread(target=switch)
    caller.start()
    wait_for("the first pages", lambda: counts(3)[0] > ASYMMETRIC[3], 60)
    tuned.kill9()
    caller.join()
    tuned.forget_profile()
    tuned.start()
    tuned.switch(own_profile("nothing", "hugepages_numa"))
    off(tuned)
    assert persistent() == list(ASYMMETRIC.values())


@pytest.mark.usefixtures("asymmetric")
def test_profiles_that_want_the_same_write_nothing(tuned: Tuned) -> None:
    assert use(tuned, pages_2M="all:40")[0]
    written = len(list(Journal().entries()))
    tuned.switch(own_profile("other", SECTION, pages_2M="0-3:40", timeout="60"))
    assert settled(tuned)[0]
    assert len(list(Journal().entries())) == written
    assert persistent() == [40] * 4


@pytest.mark.usefixtures("asymmetric")
def test_a_node_that_cannot_spare_it_is_left_alone_and_so_are_the_others(tuned: Tuned) -> None:
    verified, lines = use(tuned, pages_2M="0:100,1:490")
    assert not verified
    assert persistent() == list(ASYMMETRIC.values())
    assert "node1: 490 pages of 2M (8 exist) need 964 MiB more" in lines
    assert "less reserve_free" in lines


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pages_2M": "4:1"}, "nodes with memory here are 0-3"),
        ({"pages_16G": "0:1"}, "huge pages of this machine are of 2M, 1G"),
        ({"pages_2M": "0:many"}, "option 'pages_2M': '0:many' is not valid"),
        ({"pages_3M": "0:1"}, "option 'pages_3M': '0:1' is not valid: there is no such option"),
    ],
)
def test_what_is_not_to_be_had_here_is_named(
    tuned: Tuned, before: State, options: dict[str, str], words: str
) -> None:
    verified, lines = use(tuned, transparent_hugepages="never", **options)
    assert not verified
    assert words in lines
    assert changed(before) == {}


def test_mapped_pages_stay_and_surplus_counts_for_no_other_node(tuned: Tuned) -> None:
    assert use(tuned, pages_2M="all:8")[0]
    with guest():
        places = [node for node in range(4) if _free(node) < 8]
        mapped = {node: 8 - _free(node) for node in places}
        assert sum(mapped.values()) == 3
        tuned.switch(own_profile("less", SECTION, pages_2M="all:0"))
        verified, lines = settled(tuned)
        assert verified, lines
        assert "pending drain" in lines
        assert persistent() == [0] * 4
        assert {node: counts(node)[1] for node in places} == mapped
        other = next(node for node in range(4) if node not in places)
        verified, lines = use(tuned, pages_2M=f"{other}:20")
        assert verified, lines
        assert counts(other) == (20, 0), "also before Linux 6.7"
    wait_for("the surplus gone", lambda: all(counts(node)[1] == 0 for node in range(4)))
    off(tuned)
    assert persistent() == [0] * 4


def _free(node: int) -> int:
    return int((pool(node, M2) / "free_hugepages").read_text())


def test_pages_of_1_gib_at_run_time_beside_those_of_the_boot(tuned: Tuned) -> None:
    assert persistent(G1) == [0, 0, 0, BOOTED]
    verified, lines = use(tuned, pages_1G="3:2", pages_2M="3:8", boot="auto", reserve_free="5%")
    assert persistent(G1) == [0, 0, 0, 2], lines
    assert not verified, "the command line has one"
    assert "'hugepages_numa boot 1G' = '3:1', expected '3:2'" in lines
    assert "command line needs: hugepagesz=1G hugepages=3:2" in lines
    verified, lines = use(tuned, pages_1G="3:1", boot="auto")
    assert verified, lines
    off(tuned)
    assert persistent(G1) == [0, 0, 0, BOOTED]


def test_pages_of_1_gib_are_split_and_come_back(tuned: Tuned) -> None:
    verified, lines = use(tuned, pages_1G="3:0", pages_2M="3:512")
    assert verified, lines
    assert (persistent(G1)[3], persistent()[3]) == (0, 512)
    off(tuned)
    assert (persistent(G1)[3], persistent()[3]) == (BOOTED, 0)


def test_mounts_are_made_and_taken_away(tuned: Tuned) -> None:
    place = Path("/run/huge-pages")
    verified, lines = use(tuned, pages_2M="0:8", mount_2M=f"{place} mode=0700", mount_1G="/run/g1")
    assert verified, lines
    table = Path("/proc/self/mounts").read_text()
    assert f" {place} hugetlbfs " in table
    assert " /run/g1 hugetlbfs " in table
    assert place.stat().st_mode & 0o777 == 0o700
    off(tuned)
    assert not place.exists()
    assert not Path("/run/g1").exists()


def test_a_mount_in_use_stays_until_it_is_free(tuned: Tuned) -> None:
    place = Path("/run/huge-pages")
    assert use(tuned, pages_2M="0:8", mount_2M=str(place))[0]
    with (place / "page").open("w"):
        tuned.off()
        assert place.is_mount()
        assert f"mount_2M {place} not restored yet: " in tuned.log()
        assert subprocess.run(["tuned-virt", "restore"], check=False).returncode == 1
    assert subprocess.run(["tuned-virt", "restore"], check=False).returncode == 0
    assert not place.exists()


def test_transparent_huge_pages(tuned: Tuned, before: State) -> None:
    verified, lines = use(
        tuned,
        transparent_hugepages="never",
        defrag="defer",
        khugepaged_scan_sleep_millisecs="5000",
        overcommit_2M="16",
    )
    assert verified, lines
    assert "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    off(tuned)
    assert changed(before) == {}


@contextlib.contextmanager
def memory_of_spare() -> Iterator[None]:
    """Node 4 with memory that can be taken away again, by taking all of it offline."""
    blocks = sorted((NODES / f"node{SPARE}").glob("memory[0-9]*/state"))
    assert blocks
    for block in blocks:
        block.write_text("online_movable")
    try:
        assert (NODES / "has_memory").read_text() == "0-4\n"
        yield
    finally:
        for block in blocks:
            block.write_text("offline")
    assert (NODES / "has_memory").read_text() == "0-3\n"


def test_a_node_without_memory_has_no_part_in_all(tuned: Tuned) -> None:
    verified, lines = use(tuned, pages_2M="all:8")
    assert verified, lines
    assert persistent() == [8] * 4
    assert f"node{SPARE}" not in lines


def test_a_node_that_goes_offline_and_comes_back(tuned: Tuned) -> None:
    with memory_of_spare():
        (pool(SPARE, M2) / "nr_hugepages").write_text("2")
        verified, lines = use(tuned, pages_2M=f"0:4,{SPARE}:8")
        assert verified, lines
        assert counts(SPARE) == (8, 0)
    verified, lines = tuned.verify()
    assert not verified
    assert f"pages_2M node{SPARE}' = 'None', expected '8' (it no longer exists)" in lines
    tuned.off()
    wait_for("the others put back", lambda: persistent() == [0] * 4)
    assert (
        f"pages_2M node{SPARE} not restored yet: its node or file no longer exists" in tuned.log()
    )
    with memory_of_spare():
        assert subprocess.run(["tuned-virt", "restore"], check=False).returncode == 0
        assert counts(SPARE) == (2, 0)
        (pool(SPARE, M2) / "nr_hugepages").write_text("0")
