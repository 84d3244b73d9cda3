# SPDX-License-Identifier: GPL-2.0-or-later
"""Pools of huge pages: options, plans, and what becomes of them on a kernel in miniature."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.hugetlb import G1, M2, Counts, FakeHugetlb, Memory
from tuned_virt.core.engine import ApplyResult, Engine
from tuned_virt.core.journal import Journal
from tuned_virt.core.options import BadOptions
from tuned_virt.core.originals import Originals
from tuned_virt.model import topology
from tuned_virt.model.topology.huge_pages import folder
from tuned_virt.plugins import hugepages_numa
from tuned_virt.plugins.hugepages_numa import HugepagesTuner, boot, targets
from tuned_virt.plugins.hugepages_numa.policy import HugepagesPolicy
from tuned_virt.plugins.hugepages_numa.state import HugepagesState

GIB = 1 << 20
"""In KiB."""

NAMED = r"node(\d+)/hugepages/hugepages-(\d+)kB"


def machine(
    nodes: int = 2, gib: int = 8, pools: dict[tuple[int, int], Counts] | None = None
) -> FakeHugetlb:
    memory = {node: Memory(gib * GIB, gib * GIB) for node in range(nodes)}
    for (node, size), counts in (pools or {}).items():
        memory[node].free -= counts.nr * size
    return FakeHugetlb(memory, pools)


def engine(fs: FakeHugetlb, folder: Path) -> Engine[HugepagesPolicy, HugepagesState | None]:
    baseline = Originals(folder, "boot")
    return Engine(HugepagesTuner(folder=folder), fs, baseline, Journal(folder / "journal"))


def apply(fs: FakeHugetlb, folder: Path, **options: str) -> ApplyResult:
    return engine(fs, folder).apply(hugepages_numa.parse(options))


def lines(fs: FakeHugetlb, folder: Path, **options: str) -> list[str]:
    tune = engine(fs, folder)
    policy = hugepages_numa.parse(options)
    return [str(line) for line in tune.verify(tune.apply(policy), policy, ignore_missing=False)]


def test_nothing_is_read_for_a_policy_that_asks_for_nothing(tmp_path: Path) -> None:
    class Unreadable(FakeHugetlb):
        def read(self, path: str) -> str:
            raise AssertionError(path)

    fs = Unreadable({0: Memory(GIB, GIB)})
    assert lines(fs, tmp_path) == []


def pool_writes(fs: FakeHugetlb) -> list[str]:
    return [path for path, _ in fs.writes if path.endswith("nr_hugepages")]


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("pages_2M", "512"),
        ("pages_2M", "0:x"),
        ("pages_2M", "0:101%"),
        ("pages_2M", "0:1,0:2"),
        ("pages_2M", "0-1:1,1:2"),
        ("pages_2M", "all:1,all:2"),
        ("pages_2M", "0:-1"),
        ("pages_2M", "guests,0:1"),
        ("pages_2M", ":5"),
        ("pages_2M", "0:5,"),
        ("reserve_free", "1G"),
        ("reserve_free", "101%"),
        ("headroom", "many"),
        ("remedies", "drop_caches"),
        ("timeout", "0"),
        ("timeout", ">5"),
        ("on_partial", "retry"),
        ("boot", "yes"),
        ("overcommit_2M", "-1"),
        ("mount_2M", "dev/hugepages"),
        ("mount_2M", "/dev/../etc"),
        ("mount_2M", "/dev/huge size=1G"),
        ("mount_2M", "/dev/huge uid=root"),
        ("mount_2M", "/dev/huge mode=9"),
        ("mount_2M", "/dev/huge;reboot"),
        ("restart_libvirt", "perhaps"),
        ("transparent_hugepages", "on"),
        ("defrag", "yes"),
        ("khugepaged_pages_to_scan", "0"),
    ],
)
def test_a_bad_option_is_named_with_what_is_valid(option: str, value: str) -> None:
    with pytest.raises(BadOptions) as caught:
        hugepages_numa.parse({option: value, "pages_1G": "0:1"})
    [error] = caught.value.errors
    assert (error.option, error.value) == (option, value)
    assert len(error.valid) > 3


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(BadOptions) as caught:
        hugepages_numa.parse({"pages_2M": "x", "remedies": "y", "mount_1G": "z"})
    assert {error.option for error in caught.value.errors} == {"pages_2M", "remedies", "mount_1G"}


# --- plans --------------------------------------------------------------------------------------


def test_each_node_gets_what_is_asked_for_it(tmp_path: Path) -> None:
    fs = machine(4)
    options = {"pages_2M": "all:16,0:5,2-3:25%", "pages_1G": "1:2"}
    found = lines(fs, tmp_path, **options)
    assert fs.persistent() == {
        **dict.fromkeys(((0, G1), (2, G1), (3, G1)), 0),
        (1, G1): 2,
        (0, M2): 5,
        (1, M2): 16,
        (2, M2): 1024,
        (3, M2): 1024,
    }
    assert "verify: passed: 'hugepages_numa pages_1G node1' = '2'" in found
    assert not [line for line in found if "failed" in line]


def test_nothing_is_written_where_all_is_right(tmp_path: Path) -> None:
    fs = machine(2, pools={(0, M2): Counts(400)})
    apply(fs, tmp_path, pages_2M="0:400")
    assert fs.writes == []
    assert Originals(tmp_path, "boot").record("hugepages_numa").originals == {
        "pages_2M node0": "400"
    }


def test_larger_pages_come_first_and_giving_back_before_taking(tmp_path: Path) -> None:
    fs = machine(2, pools={(0, G1): Counts(4), (1, M2): Counts(600)})
    apply(fs, tmp_path, pages_1G="0:1,1:2", pages_2M="0:8,1:100")
    order = [(node, size) for path in pool_writes(fs) for node, size in re.findall(NAMED, path)]
    assert list(dict.fromkeys(order)) == [
        ("0", str(G1)),
        ("1", str(M2)),
        ("1", str(G1)),
        ("0", str(M2)),
    ]


def test_pages_are_split_where_that_serves(tmp_path: Path) -> None:
    fs = machine(1, pools={(0, G1): Counts(4, mapped=1)})
    for counts in fs.pools.values():
        counts.reach = counts.nr  # nothing else can be had
    apply(fs, tmp_path, pages_1G="0:2", pages_2M="0:1024", remedies="none")
    assert fs.persistent() == {(0, G1): 2, (0, M2): 1024}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pages_2M": "7:1"}, "nodes with memory here are 0-1"),
        ({"pages_64K": "0:1"}, "huge pages of this machine are of 2M, 1G"),
        ({"mount_64K": "/dev/huge"}, "huge pages of this machine are of 2M, 1G"),
        ({"overcommit_1G": "4"}, "has no surplus pages of 1G"),
    ],
)
def test_what_this_machine_does_not_have_is_refused_whole(
    tmp_path: Path, options: dict[str, str], words: str
) -> None:
    fs = machine()
    found = lines(fs, tmp_path, pages_1G="0:1", transparent_hugepages="never", **options)
    assert fs.writes == []
    [failed] = [line for line in found if line.startswith("verify: failed")]
    assert words in failed


def test_a_request_that_would_starve_a_node_is_refused_with_the_arithmetic(tmp_path: Path) -> None:
    fs = machine(2, gib=8)
    found = lines(fs, tmp_path, pages_1G="0:7", pages_2M="0:256")
    assert fs.writes == []
    assert (
        "verify: failed: hugepages_numa: node0: 256 pages of 2M (0 exist), 7 pages of 1G (0"
        " exist) need 7680 MiB more; the node can give 7372 MiB (8192 free or cache, less"
        " reserve_free 819)" in found
    )


@pytest.mark.parametrize(("reserve", "fits"), [("1024", True), ("1025", False), ("0", True)])
def test_the_reserve_is_the_administrators(tmp_path: Path, reserve: str, fits: bool) -> None:
    fs = machine(1, gib=8)
    apply(fs, tmp_path, pages_1G="0:7", reserve_free=reserve)
    assert fs.persistent()[0, G1] == (7 if fits else 0)


def test_what_is_given_back_counts_for_the_reserve(tmp_path: Path) -> None:
    fs = machine(1, gib=8, pools={(0, G1): Counts(6)})
    apply(fs, tmp_path, pages_1G="0:1", pages_2M="0:2560")
    assert fs.persistent() == {(0, G1): 1, (0, M2): 2560}


def test_mapped_pages_are_never_taken(tmp_path: Path) -> None:
    fs = machine(1, pools={(0, M2): Counts(200, mapped=100)})
    found = lines(fs, tmp_path, pages_2M="0:0")
    pool = fs.pools[0, M2]
    assert (pool.nr, pool.mapped, pool.persistent) == (100, 100, 0)
    assert any(
        "pages_2M node0: pending drain: 100 pages are in use, 100 more" in one for one in found
    )
    assert not [line for line in found if "failed" in line]


@pytest.mark.parametrize(("asked", "said"), [(40, "60 more than"), (99, "1 more than"), (100, "")])
def test_what_is_mapped_beyond_a_pool_is_said(tmp_path: Path, asked: int, said: str) -> None:
    fs = machine(1, pools={(0, M2): Counts(200, mapped=100)})
    notes = [one for one in lines(fs, tmp_path, pages_2M=f"0:{asked}") if "pending drain" in one]
    assert [said in note for note in notes] == ([True] if said else [])


def test_surplus_of_other_nodes_does_not_count_on_old_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = {(0, M2): Counts(40, mapped=40, surplus=24), (1, M2): Counts(30)}
    monkeypatch.setattr(boot, "version", lambda release: (6, 1))
    memory = {node: Memory(8 * GIB, 4 * GIB) for node in (0, 1)}
    for old in (True, False):
        fs = FakeHugetlb(memory, {key: Counts(**vars(one)) for key, one in pools.items()})
        object.__setattr__(fs, "old", old)
        apply(fs, tmp_path, pages_2M="1:64")
        assert fs.persistent()[1, M2] == 64, "also where a distribution has mended its old kernel"
        engine(fs, tmp_path).restore()
        assert fs.persistent()[1, M2] == 30


def test_surplus_of_the_node_itself_is_no_other_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = {
        (0, M2): Counts(40, mapped=40, surplus=24),
        (1, M2): Counts(30, mapped=30, surplus=10),
    }
    monkeypatch.setattr(boot, "version", lambda release: (6, 6))
    fs = FakeHugetlb({node: Memory(8 * GIB, 4 * GIB) for node in (0, 1)}, pools, (M2, G1), True)
    apply(fs, tmp_path, pages_2M="1:64")
    assert fs.writes == [(f"{folder(1, M2)}/nr_hugepages", "40")]
    assert fs.persistent()[1, M2] == 64


def test_kernels_from_6_7_get_the_number_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "version", lambda release: (6, 7))
    fs = machine(2, pools={(0, M2): Counts(40, mapped=40, surplus=24)})
    apply(fs, tmp_path, pages_2M="1:64")
    assert fs.writes == [(f"{folder(1, M2)}/nr_hugepages", "64")]


def test_pools_that_guests_use_shrink_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "version", lambda release: (6, 1))
    pools = {(0, M2): Counts(8, mapped=3), (1, M2): Counts(8)}
    fs = FakeHugetlb({node: Memory(8 * GIB, 4 * GIB) for node in (0, 1)}, pools, (M2, G1), True)
    apply(fs, tmp_path, pages_2M="all:0")
    assert fs.persistent() == dict.fromkeys(fs.pools, 0)
    assert fs.pools[0, M2].surplus == 3


def test_what_an_old_kernel_cannot_do_while_guests_run_is_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "version", lambda release: (6, 1))
    pools = {(0, M2): Counts(40, mapped=40, surplus=24), (1, M2): Counts(10)}
    fs = FakeHugetlb({node: Memory(8 * GIB, 4 * GIB) for node in (0, 1)}, pools, (M2, G1), True)
    apply(fs, tmp_path, pages_2M="1:64")
    engine(fs, tmp_path).restore()
    [reason] = Originals(tmp_path, "boot").record("hugepages_numa").pending.values()
    assert reason == (
        "10 pages of 2M requested, 24 got; kernels before 6.7 keep at least as many as there are"
        " surplus pages on other nodes, 24"
    )
    fs.pools[0, M2] = Counts(16)
    engine(fs, tmp_path).restore()
    assert fs.persistent()[1, M2] == 10


# --- what cannot be had -------------------------------------------------------------------------


def fragmented(reach: int = 300, compaction: int = 0) -> FakeHugetlb:
    fs = machine(1, pools={(0, M2): Counts(10, reach=reach)})
    object.__setattr__(fs, "compaction", compaction)
    return fs


def test_compaction_comes_before_another_try(tmp_path: Path) -> None:
    fs = fragmented(compaction=1 << 20)
    apply(fs, tmp_path, pages_2M="0:500")
    assert fs.persistent()[0, M2] == 500
    kinds = [path.rpartition("/")[2] for path, _ in fs.writes]
    assert kinds == ["nr_hugepages", "compact", "nr_hugepages"]


def test_memory_is_not_compacted_for_pages_beyond_the_kernels_blocks(tmp_path: Path) -> None:
    fs = machine(1, pools={(0, G1): Counts(0, reach=1)})
    found = lines(fs, tmp_path, pages_1G="0:2")
    assert {path for path, _ in fs.writes} == {f"{folder(0, G1)}/nr_hugepages"}
    assert "(2 pages of 1G requested, 1 got)" in "".join(found)


@pytest.mark.parametrize(
    ("buddyinfo", "kib"),
    [
        (f"Node 0, zone      DMA {'0 ' * 11}", 4096),
        (f"Node 0, zone   Normal {'1 ' * 14}\nNode 1, zone Normal {'1 ' * 14}", 32768),
        ("", 4096),
    ],
)
def test_the_kernels_largest_block(
    buddyinfo: str, kib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology.memory, "page_size", lambda: 4096)
    fs = machine(1)
    fs.files["/proc/buddyinfo"] = buddyinfo
    assert topology.largest_block(fs) == kib


def test_without_a_remedy_it_is_not_tried_again(tmp_path: Path) -> None:
    fs = fragmented()
    found = lines(fs, tmp_path, pages_2M="0:500", remedies="none")
    assert len(pool_writes(fs)) == 1
    assert (
        "verify: failed: 'hugepages_numa pages_2M node0' = '300', expected '500'"
        " (500 pages of 2M requested, 300 got)" in found
    )


def test_a_partial_pool_is_rolled_back_if_asked(tmp_path: Path) -> None:
    fs = fragmented()
    found = lines(fs, tmp_path, pages_2M="0:500", on_partial="rollback")
    assert fs.persistent()[0, M2] == 10
    assert "300 got, after compact; rolled back to 10" in "".join(found)


def test_a_partial_pool_takes_larger_pages_if_asked(tmp_path: Path) -> None:
    pools = {(0, M2): Counts(0, reach=100), (0, G1): Counts(3)}
    fs = machine(1, pools=pools)
    object.__setattr__(fs, "compaction", 0)
    apply(fs, tmp_path, pages_2M="0:500", on_partial="demote")
    assert fs.persistent() == {(0, M2): 500, (0, G1): 2}
    written = len(fs.writes)
    apply(fs, tmp_path, pages_2M="0:500", on_partial="demote")
    assert len(fs.writes) == written
    engine(fs, tmp_path).restore()
    assert fs.persistent() == {(0, M2): 0, (0, G1): 3}


def test_what_larger_pages_did_not_bring_is_said(tmp_path: Path) -> None:
    fs = machine(1, pools={(0, M2): Counts(0, reach=100), (0, G1): Counts(1)})
    object.__setattr__(fs, "compaction", 0)
    found = lines(fs, tmp_path, pages_2M="0:2000", on_partial="demote")
    assert "2000 pages of 2M requested, 612 got, after compact, demoting pages of 1G" in "".join(
        found
    )


def test_larger_pages_that_are_asked_for_are_not_taken(tmp_path: Path) -> None:
    fs = machine(1, pools={(0, M2): Counts(0, reach=100), (0, G1): Counts(3)})
    object.__setattr__(fs, "compaction", 0)
    apply(fs, tmp_path, pages_2M="0:500", pages_1G="0:3", on_partial="demote")
    assert fs.persistent() == {(0, M2): 100, (0, G1): 3}


def abandon_after_a_write(
    tune: Engine[HugepagesPolicy, HugepagesState | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = FakeHugetlb.write

    def abandons(self: FakeHugetlb, path: str, value: str) -> None:
        write(self, path, value)
        tune.abandon()

    monkeypatch.setattr(FakeHugetlb, "write", abandons)


def test_an_allocation_ends_when_something_else_is_to_be_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = machine(1, gib=64)
    tune = engine(fs, tmp_path)
    abandon_after_a_write(tune, monkeypatch)
    outcome = tune.apply(hugepages_numa.parse({"pages_2M": "0:20000", "pages_1G": "0:2"}))
    assert fs.persistent() == {(0, G1): 1, (0, M2): 0}, "between two writes"
    assert set(outcome.failed) == {"pages_1G node0", "pages_2M node0"}
    monkeypatch.undo()
    engine(fs, tmp_path).restore()
    assert fs.persistent() == {(0, G1): 0, (0, M2): 0}


def test_what_is_given_up_is_not_rolled_back_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = fragmented()
    tune = engine(fs, tmp_path)
    abandon_after_a_write(tune, monkeypatch)
    tune.apply(hugepages_numa.parse({"pages_2M": "0:500", "on_partial": "rollback"}))
    assert len(fs.writes) == 1, "what comes next decides on the pool"


def test_progress_is_told_while_it_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tuned_virt.plugins.hugepages_numa import progress, writer

    monkeypatch.setattr(writer, "EVERY", 0.0)
    monkeypatch.setattr(writer, "STEP", 0.0)
    told = []
    keep = progress.ProgressFile.write

    def look(self: progress.ProgressFile, what: progress.Progress) -> None:
        keep(self, what)
        told.append(self.read())

    monkeypatch.setattr(progress.ProgressFile, "write", look)
    with caplog.at_level("INFO"):
        apply(machine(1, gib=64), tmp_path, pages_1G="0:3")
    assert [(one.node, one.pages, one.target) for one in told if one] == [
        (0, 1, 3),
        (0, 2, 3),
        (0, 3, 3),
    ]
    assert "hugepages_numa: node0: 1 of 3 pages of 1G, " in caplog.text
    assert progress.ProgressFile(tmp_path).read() is None


def test_after_the_timeout_no_remedy_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = machine(1, pools={(0, M2): Counts(0, reach=300), (0, G1): Counts(1)})
    asked = {"pages_2M": "0:500", "on_partial": "demote", "timeout": "30"}
    now = iter(range(0, 1_000, 8))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    apply(fs, tmp_path, **asked)
    assert [path.rpartition("/")[2] for path, _ in fs.writes] == ["nr_hugepages"]


def test_the_timeout_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 10_000, 3))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    fs = machine(1, gib=64)
    apply(fs, tmp_path, pages_1G="0:40", timeout="30")
    assert 0 < fs.persistent()[0, G1] < 40


def test_a_node_that_goes_offline_keeps_the_others_original(tmp_path: Path) -> None:
    fs = machine(2, pools={(1, M2): Counts(7)})
    apply(fs, tmp_path, pages_2M="0:16,1:32")
    for size in fs.sizes:
        del fs.pools[1, size]
    del fs.memory[1]
    engine(fs, tmp_path).restore()
    assert fs.persistent()[0, M2] == 0
    record = Originals(tmp_path, "boot").record("hugepages_numa")
    assert record.originals == {"pages_2M node1": "7"}
    assert record.pending == {"pages_2M node1": "its node or file no longer exists"}


# --- transparent huge pages, the kernel's command line ------------------------------------------


def test_transparent_huge_pages_and_back(tmp_path: Path) -> None:
    fs = machine()
    before = dict(fs.files)
    fs.files["/proc/cmdline"] = before["/proc/cmdline"] = "quiet transparent_hugepage=never"
    found = lines(
        fs,
        tmp_path,
        transparent_hugepages="always",
        defrag="defer",
        khugepaged_pages_to_scan="8192",
    )
    assert "verify: passed: 'hugepages_numa transparent_hugepages' = 'always'" in found
    assert "verify: passed: 'hugepages_numa khugepaged_pages_to_scan' = '8192'" in found
    assert any(
        "command line has transparent_hugepage=never; the profile's" in line for line in found
    )
    engine(fs, tmp_path).restore()
    assert fs.files == before


def test_a_setting_that_the_kernel_lacks_is_missing(tmp_path: Path) -> None:
    found = lines(machine(), tmp_path, khugepaged_max_ptes_shared="1")
    assert [line for line in found if "failed" in line] == [
        "verify: failed: hugepages_numa: khugepaged_max_ptes_shared: this kernel has no"
        " /sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_shared"
    ]


@pytest.mark.parametrize(
    ("counts", "release", "text"),
    [
        ({0: 4, 1: 2}, (6, 18), "0:4,1:2"),
        ({0: 4, 1: 0}, (6, 18), "0:4"),
        ({0: 4, 1: 4}, (6, 14), "0:4,1:4"),
        ({0: 4, 1: 4}, (6, 1), "8"),
        ({0: 4, 1: 2}, (6, 1), "0:4,1:2"),
        ({0: 4, 1: 2}, (5, 14), "6"),
    ],
)
def test_numbers_for_the_command_line_are_right_for_the_kernel(
    counts: dict[int, int], release: tuple[int, int], text: str
) -> None:
    assert boot.numbers(counts, 2, release) == text
    said = bool(boot.remark(counts, 2, release))
    assert said == ((counts == {0: 4, 1: 2}) and release < (6, 14))


@pytest.mark.parametrize(
    ("cmdline", "found"),
    [
        ("hugepagesz=1G hugepages=0:4,1:2", {G1: "0:4,1:2"}),
        ("hugepages=5 hugepagesz=1G hugepages=2", {M2: "5", G1: "2"}),
        ("hugepagesz=1G hugepagesz=2M hugepages=7", {M2: "7"}),
        ("hugepagesz=1G hugepages=2 hugepagesz=1G hugepages=9", {G1: "2"}),
        ("default_hugepagesz=1G hugepages=3", {G1: "3"}),
        ("hugepages=16 default_hugepagesz=1G", {G1: "16"}),
        ("hugepages=16 quiet hugepagesz=1G hugepages=2 default_hugepagesz=1G", {G1: "16"}),
        ("hugepages=16 hugepagesz=2M hugepages=5", {M2: "16"}),
        ("hugepagesz=x hugepages=3", {}),
        ("hugepagesz=3M hugepages=3 hugepages=4", {M2: "4"}),
        ("hugepagesz=1G hugepages=2 hugepages=5", {G1: "2"}),
        ("hugepagesz=1G hugepages=2 hugepagesz=1G hugepages=9 hugepages=7", {G1: "2"}),
        ("default_hugepagesz=1G hugepagesz=1G hugepages=4", {G1: "4"}),
        ("default_hugepagesz=1G hugepages=3 hugepagesz=1G hugepages=4", {G1: "3"}),
        ("default_hugepagesz=1G default_hugepagesz=2M hugepages=4", {}),
        ("hugepagesz=1g hugepages=1", {G1: "1"}),
        ("quiet", {}),
        ("hugepagesz=1GB default_hugepagesz=1GB hugepages=6", {G1: "6"}),  # xmrig 1411
        ("hugepagesz=1GB hugepages=6 hugepagesz=2MB hugepages=480", {G1: "6", M2: "480"}),
        ("default_hugepagesz=1GB hugepagesz=1G hugepages=12", {G1: "12"}),  # Open vSwitch, TripleO
        ("default_hugepagesz=1GB hugepagesz=1G hugepages=4G", {G1: "4"}),
        ("hugepagesz=1GB hugepages=0 hugepagesz=2MB hugepages=153600", {G1: "0", M2: "153600"}),
        ("hugepagesz=1024M hugepages=3 hugepagesz=1GB hugepages=9", {G1: "3"}),
        ("hugepagesz=1073741824 hugepages=2 hugepagesz=0x200000 hugepages=5", {G1: "2", M2: "5"}),
        ("hugepagesz=010000000000 hugepages=2", {G1: "2"}),
        ("default-hugepagesz=1G hugepages=4", {G1: "4"}),
        ('"hugepages=8" hugepagesz="1G" hugepages="3"', {M2: "8", G1: "3"}),
        ('dyndbg="file x hugepages=9" hugepages=8 -- hugepages=7 hugepagesz=1G', {M2: "8"}),
        ("hugepagesz=1G hugepages=x hugepages=4", {G1: "4"}),
        ("hugepagesz=1G hugepages=0:1,1:3,", {G1: "0:1,1:3"}),
        # a number of 0 counts as none for the default size
        ("hugepages=0 hugepagesz=2M hugepages=4", {M2: "4"}),
        ("hugepages=7 hugepagesz=2M hugepages=4", {M2: "7"}),
        ("hugepages=0 hugepagesz=1G hugepages=4 default_hugepagesz=1G", {G1: "4"}),
        (
            "default_hugepagesz=1G hugepagesz=1G hugepages=0 hugepagesz=2M hugepages=512"
            " hugepagesz=1G hugepages=0:4",
            {M2: "512", G1: "0:4"},
        ),
        ("hugepages=", {}),
    ],
)
def test_the_command_line_is_read_in_its_order(cmdline: str, found: dict[int, str]) -> None:
    assert boot.parse(cmdline, sizes=[M2, G1]) == found


def test_what_helps_on_the_command_line() -> None:
    counts = {G1: 200}
    saved = "hugetlb_free_vmemmap=on would free 3199 MiB of the kernel's tables for these pages"
    assert boot.without_vmemmap(counts, "quiet", (6, 1), 4096) == saved
    assert boot.without_vmemmap({G1: 3}, "quiet", (6, 1), 4096) == ""
    assert boot.without_vmemmap(counts, "hugetlb_free_vmemmap=off", (6, 1), 4096) == ""
    assert boot.without_vmemmap(counts, "", (5, 13), 4096) == ""
    line = "quiet default_hugepagesz=1G hugepagesz=1G hugepages=2"
    why = "default_hugepagesz=1G on its command line leaves out others: add hugepagesz=2M"
    assert boot.left_out(line, M2) == why
    assert boot.left_out(line, G1) == boot.left_out(f"{line} hugepagesz=2M", M2) == ""
    assert boot.left_out("quiet", M2) == ""
    assert boot.left_out(line.replace("1G", "1GB"), M2) == why.replace("1G", "1GB")
    assert boot.left_out("default_hugepagesz=1G hugepagesz=2MB", M2) == ""


def test_larger_pages_come_first_on_the_command_line() -> None:
    line = boot.arguments({M2: "0:4", G1: "0:1,1:2", 64: "0"})
    assert line == "hugepagesz=1G hugepages=0:1,1:2 hugepagesz=2M hugepages=0:4"
    assert boot.parse(line) == {M2: "0:4", G1: "0:1,1:2"}


@pytest.mark.parametrize(
    ("cmdline", "before"),
    [
        ("ro hugepagesz=1G hugepages=8 quiet", "hugepagesz=1G hugepages=8"),
        ("hugepagesz=1G hugepages=8 hugepagesz=1G hugepages=0:4", "hugepagesz=1G hugepages=8"),
        ("default_hugepagesz=1G hugepages=8", "hugepages=8"),
        ("hugepagesz=2M hugepages=9 hugepages=3 default_hugepagesz=1G hugepages=5", "hugepages=5"),
        ("hugepagesz=1G hugepages=0:4 hugepagesz=1G hugepages=8", ""),
        ("hugepagesz=2M hugepages=8 hugepages=7", ""),
        ("default_hugepagesz=1GB hugepagesz=1GB hugepages=8", "hugepagesz=1GB hugepages=8"),
        ("default_hugepagesz=1G hugepagesz=1G hugepages=0", "hugepagesz=1G hugepages=0"),
        ("default_hugepagesz=1G hugepagesz=1G hugepages=0 hugepagesz=2M hugepages=512", ""),
        (
            "hugepagesz=1G hugepages=40 hugepagesz=2M hugepages=0 default_hugepagesz=1G -- x",
            "hugepagesz=1G hugepages=40",
        ),
        ("quiet", ""),
    ],
)
def test_what_stands_in_the_way_on_the_command_line(cmdline: str, before: str) -> None:
    assert boot.in_the_way(cmdline, G1, "0:4") == before


@pytest.mark.parametrize(
    ("cmdline", "said"),
    [
        ("ro hugepagesz=1G hugepages=8", ", unless an earlier request of TuneD's put it there:"),
        ("hugepagesz=1G hugepages=8 hugepagesz=1G hugepages=0:1,1:2", "configuration:"),
    ],
)
def test_verify_says_what_to_remove_from_the_command_line(
    tmp_path: Path, cmdline: str, said: str
) -> None:
    fs = machine()
    fs.files["/proc/cmdline"] = cmdline
    found = lines(fs, tmp_path, pages_1G="0:1,1:2", boot="auto")
    [line] = [line for line in found if "remove hugepagesz=1G hugepages=8 from" in line]
    assert said in line
    fs.files["/proc/cmdline"] = "hugepagesz=1G hugepages=0:1,1:2 hugepagesz=1G hugepages=8"
    assert "remove" not in "".join(lines(fs, tmp_path, pages_1G="0:1,1:2", boot="auto"))


def test_verify_says_what_the_command_line_lacks(tmp_path: Path) -> None:
    fs = machine()
    options = {"pages_1G": "0:1,1:2", "pages_2M": "0:4", "boot": "auto"}
    found = lines(fs, tmp_path, **options)
    assert "verify: failed: 'hugepages_numa boot 1G' = '', expected '0:1,1:2'" in found
    assert any("needs: hugepagesz=1G hugepages=0:1,1:2" in line for line in found)
    fs.files["/proc/cmdline"] = "hugepagesz=1G hugepages=0:1,1:2"
    assert "verify: passed: 'hugepages_numa boot 1G' = '0:1,1:2'" in lines(fs, tmp_path, **options)


# --- properties ---------------------------------------------------------------------------------

amounts = st.one_of(
    st.integers(0, 3000).map(str), st.integers(0, 100).map(lambda percent: f"{percent}%")
)
requests = st.dictionaries(st.sampled_from(["0", "1", "2", "all"]), amounts, min_size=1).map(
    lambda items: ",".join(f"{node}:{amount}" for node, amount in items.items())
)
options = st.fixed_dictionaries(
    {},
    optional={
        "pages_2M": requests,
        "pages_1G": requests,
        "reserve_free": amounts,
        "on_partial": st.sampled_from(["keep", "rollback", "demote"]),
        "remedies": st.sampled_from(["none", "compact", "compact,drop_caches"]),
    },
)


@st.composite
def machines(draw: st.DrawFn) -> FakeHugetlb:
    memory, pools = {}, {}
    for node in range(3):
        total = draw(st.integers(0, 12)) * GIB
        left = total
        for size in (G1, M2):
            nr = draw(st.integers(0, min(left // size, 2000)))
            mapped = draw(st.integers(0, nr))
            surplus = draw(st.integers(0, mapped)) if size == M2 else 0
            pools[node, size] = Counts(nr, mapped, surplus)
            left -= nr * size
        free = draw(st.integers(0, left))
        memory[node] = Memory(total, free, draw(st.integers(0, left - free)))
    return FakeHugetlb(memory, pools)


def left(fs: FakeHugetlb, node: int) -> int:
    return fs.memory[node].free + fs.memory[node].cache


@given(machines(), options)
def test_any_request_leaves_floors_and_mapped_pages_and_can_be_undone(
    tmp_path_factory: pytest.TempPathFactory, fs: FakeHugetlb, given_options: dict[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    policy = hugepages_numa.parse(given_options)
    before = fs.persistent()
    mapped = {place: counts.mapped for place, counts in fs.pools.items()}
    available = {node: left(fs, node) for node in fs.memory}
    tune = engine(fs, folder)
    outcome = tune.apply(policy)
    for node, memory in fs.memory.items():
        floor = targets.reserve_kib(policy, memory.total)
        assert left(fs, node) >= min(floor, available[node])
    assert all(counts.nr >= mapped[place] for place, counts in fs.pools.items())
    if outcome.plan.refused:
        assert fs.persistent() == before
    if not outcome.failed:
        assert not tune.plan(policy).changes, "applied once is applied"
    tune.restore()
    assert fs.persistent() == before
    assert not Originals(folder, "boot").all()


def test_the_loop_ends_whatever_the_kernel_says() -> None:
    from tuned_virt.plugins.hugepages_numa.planner import PoolChange
    from tuned_virt.plugins.hugepages_numa.setting_types import PoolSetting
    from tuned_virt.plugins.hugepages_numa.writer import Allocation

    class Stubborn(FakeHugetlb):
        def write(self, path: str, value: str) -> None:
            self.writes.append((path, value))

    fs = Stubborn({0: Memory(GIB, GIB)})
    change = PoolChange(
        "pages_2M node0",
        "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages",
        *(0, 100, "set by the profile"),
        pool=PoolSetting(0, M2),
        timeout=5,
    )
    Allocation(fs, change, threading.Event(), (6, 18), lambda progress: None).run()
    assert len(fs.writes) == 1
