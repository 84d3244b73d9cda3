# SPDX-License-Identifier: GPL-2.0-or-later
"""Pools sized by what guests request: `pages_…=guests`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.core.test_plan_runner import wait_until
from tests.unit.hugetlb import G1, M2, Counts, FakeHugetlb, Memory
from tuned_virt.core.engine import Engine
from tuned_virt.core.guest_source import FixedGuests
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.core.plan_runner import PlanRunner
from tuned_virt.libvirt_api.guest_pages import Asking
from tuned_virt.model.guest import Guest, read_guest
from tuned_virt.model.topology.huge_pages import Pool
from tuned_virt.plugins import hugepages_numa
from tuned_virt.plugins.hugepages_numa import HugepagesTuner, demand, planner
from tuned_virt.plugins.hugepages_numa.policy import HugepagesPolicy
from tuned_virt.plugins.hugepages_numa.setting_types import PoolSetting
from tuned_virt.plugins.hugepages_numa.state import HugepagesState

GIB = 1 << 20
KIB_OF_MIB = 1024

XML = """
<domain type='qemu'><name>web</name><uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid>
<memory unit='MiB'>{mib}</memory><vcpu>4</vcpu>
<memoryBacking><hugepages>{pages}</hugepages></memoryBacking>
{more}
<os><type arch='x86_64'>hvm</type></os></domain>
"""
CELLS = """
<cpu><numa>
  <cell id='0' cpus='0-1' memory='512' unit='MiB'/><cell id='1' cpus='2-3' memory='1' unit='GiB'/>
</numa></cpu>
"""


def one(guest: Guest | None, running: bool = False) -> Asking:
    return Asking("", running, guest)


def guest(mib: int = 1024, pages: str = "", more: str = "") -> Guest:
    return read_guest(XML.format(mib=mib, pages=pages, more=more))


def bound(nodes: str, mib: int = 1024) -> Asking:
    tune = f"<numatune><memory mode='strict' nodeset='{nodes}'/></numatune>"
    return one(guest(mib, "<page size='2' unit='M'/>", tune))


def test_the_owners_nodes_get_the_pages() -> None:
    machine = FakeHugetlb({node: Memory(8 * GIB, 4 * GIB) for node in range(3)})
    policy, state = planned(machine, [bound("1"), bound("0,2", 1022)])
    assert state.demand == {(1, M2): 512, (0, M2): 256, (2, M2): 255}
    assert policy.follows_guests


def planned(fs: FakeHugetlb, guests: list[Asking]) -> tuple[HugepagesPolicy, HugepagesState]:
    from tuned_virt.plugins.hugepages_numa import state

    policy = hugepages_numa.parse({"pages_2M": "guests"})
    known = FixedGuests(dict(enumerate_uuids(guests)))
    return policy, state.read(fs, policy, {}, known)


def enumerate_uuids(guests: list[Asking]) -> list[tuple[str, Asking]]:
    return [(str(number), one) for number, one in enumerate(guests)]


@pytest.mark.parametrize(
    ("pages", "more", "expected"),
    [
        ("", "", [(M2, GIB, ())]),
        ("<page size='1' unit='G'/>", "", [(G1, GIB, ())]),
        ("<page size='2048'/>", CELLS, [(M2, GIB // 2, ()), (M2, GIB, ())]),
        (
            "<page size='2048'/><page size='1' unit='G' nodeset='1'/>",
            CELLS + "<numatune><memnode cellid='1' mode='strict' nodeset='3'/></numatune>",
            [(M2, GIB // 2, ()), (G1, GIB, (3,))],
        ),
        ("<page size='1' unit='G' nodeset='1'/>", CELLS, [(G1, GIB, ())]),
    ],
)
def test_portions_by_cell(
    pages: str, more: str, expected: list[tuple[int, int, tuple[int, ...]]]
) -> None:
    found = demand.portions(guest(1024, pages, more), M2)
    assert [(one.size_kib, one.memory, one.nodes) for one in found] == expected


def test_a_guest_of_no_node_gets_the_roomiest_and_a_running_one_what_it_has() -> None:
    memory = {0: Memory(8 * GIB, 2 * GIB), 1: Memory(8 * GIB, 4 * GIB)}
    fs = FakeHugetlb(memory, {(0, M2): Counts(100, mapped=70)})
    idle, running = one(guest()), one(guest(), running=True)
    _, state = planned(fs, [idle, running, one(None)])
    assert state.demand == {(0, M2): 70, (1, M2): 512}


class Guests:
    """What the test says of libvirt."""

    def __init__(self) -> None:
        self.guests: Mapping[str, Asking] | None = None
        self.unavailable = "libvirt has not answered yet"
        self.changed: Callable[[str], None] | None = None

    def now(self, *guests: Asking) -> None:
        self.guests = dict(enumerate_uuids(list(guests)))
        wait_until(lambda: self.changed is not None)
        assert self.changed is not None
        self.changed("guests have changed")

    def start(self, changed: Callable[[str], None]) -> None:
        self.changed = changed

    def stop(self) -> None:
        pass


def test_pools_grow_with_guests_and_never_shrink_by_themselves(tmp_path: Path) -> None:
    fs = FakeHugetlb({node: Memory(8 * GIB, 6 * GIB) for node in (0, 1)})
    libvirt = Guests()
    tuner = HugepagesTuner(libvirt, tmp_path)
    engine = Engine(tuner, fs, Originals(tmp_path, "boot"), Journal(tmp_path / "journal"))
    runner = PlanRunner(engine)
    runner.apply(hugepages_numa.parse({"pages_2M": "guests", "headroom": "10%"}))
    assert fs.writes == []
    assert any(
        "the requests of guests are unknown: libvirt has not answered yet" in str(one)
        for one in runner.verify(False)
    )
    libvirt.now(bound("1"))
    wait_until(lambda: fs.pools[1, M2].nr == 564)
    libvirt.now(bound("1"), bound("0", 2048))
    wait_until(lambda: fs.pools[0, M2].nr == 1127)
    libvirt.now()
    libvirt.now(bound("0"))
    wait_until(lambda: "still being applied" not in "".join(map(str, runner.verify(False))))
    assert "failed" not in "".join(map(str, runner.verify(False)))
    assert (fs.pools[0, M2].nr, fs.pools[1, M2].nr) == (1127, 564)
    runner.restore()
    wait_until(lambda: fs.persistent() == dict.fromkeys(fs.pools, 0))


def test_what_a_node_cannot_spare_for_guests_is_said(tmp_path: Path) -> None:
    fs = FakeHugetlb({0: Memory(8 * GIB, 2 * GIB)})
    policy, state = planned(fs, [bound("0", 4096)])
    plan = planner.plan(policy, state, {})
    assert plan.wanted == {"pages_2M node0": "614"}, "2048 MiB less the 819 of reserve_free"
    assert plan.notes == (
        "pages_2M node0: guests request 2048 pages, with headroom 2048; the node can spare 614",
    )


def asking(gib: int, more: str = "") -> Asking:
    """A guest that does not run, with pages of 1 GiB."""
    return Asking("u", False, guest(gib * 1024, "<page size='1' unit='G'/>", more))


@pytest.mark.parametrize(
    ("asks", "expected"),
    [
        ([("", 2), ("0", 6)], {0: 6, 1: 2}),
        ([("", 3), ("", 5)], {0: 5, 1: 3}),
        ([("", 5), ("", 3)], {0: 5, 1: 3}),
        ([("", 7), ("1", 3)], {0: 7, 1: 3}),
    ],
    ids=["named nodes first", "then the largest", "in any order", "and a small one that is named"],
)
def test_guests_that_may_run_anywhere_get_what_the_others_leave(
    asks: list[tuple[str, int]], expected: dict[int, int]
) -> None:
    """In GiB, on nodes of 8 and 7."""
    pools = {PoolSetting(node, G1): Pool(node, G1, 0, 0, 0) for node in range(2)}
    numatune = "<numatune><memory mode='strict' nodeset='{}'/></numatune>"
    wanted = [asking(gib, numatune.format(nodes) if nodes else "") for nodes, gib in asks]
    found = demand.asked(wanted, pools, M2, {0: 8 * GIB, 1: 7 * GIB})
    assert found == {PoolSetting(node, G1): pages for node, pages in expected.items()}


@pytest.mark.parametrize(
    ("pools", "spare", "node"),
    [
        ({0: (0, 0), 1: (0, 0)}, {0: 8, 1: 8}, 0),
        ({0: (0, 0), 1: (0, 0)}, {0: 8, 1: 9}, 1),
        ({0: (2, 0), 1: (0, 0)}, {0: 8, 1: 9}, 0),
        ({0: (2, 2), 1: (0, 0)}, {0: 8, 1: 9}, 1),
        ({0: (0, 0), 1: (1, 0)}, {0: 8, 1: 7}, 0),
        ({1: (0, 0)}, {0: 8, 1: 1}, 1),
    ],
    ids=["the lower", "the roomier", "with its pool", "as far as that is free", "equal", "no pool"],
)
def test_a_guest_that_may_run_anywhere_gets_the_roomiest_node(
    pools: dict[int, tuple[int, int]], spare: dict[int, int], node: int
) -> None:
    """Pools as (pages, of those mapped), in GiB."""
    made = {
        PoolSetting(n, G1): Pool(n, G1, nr, nr - mapped, 0) for n, (nr, mapped) in pools.items()
    }
    found = demand.asked([asking(3)], made, M2, {n: kib * GIB for n, kib in spare.items()})
    mapped = {n: used for n, (_, used) in pools.items() if used}
    assert found == {
        PoolSetting(n, G1): pages for n, pages in {**mapped, node: mapped.get(node, 0) + 3}.items()
    }


def test_guests_on_one_node_add_up() -> None:
    made = {PoolSetting(0, G1): Pool(0, G1, 9, 7, 0)}
    bound_to = "<numatune><memory mode='strict' nodeset='0'/></numatune>"
    two = [asking(1, bound_to), asking(4)]
    assert demand.asked(two, made, M2, {0: GIB}) == {PoolSetting(0, G1): 2 + 1 + 4}
    assert demand.asked([asking(4)], made, M2, {}) == {PoolSetting(0, G1): 2}
    running = replace(asking(4), running=True)
    assert demand.asked([running, Asking("u", False, None)], made, M2, {0: GIB}) == {
        PoolSetting(0, G1): 2
    }


def test_of_several_entries_the_first_that_names_the_cell() -> None:
    pages = (
        "<page size='1' unit='G' nodeset='1'/><page size='2' unit='M' nodeset='1'/>"
        "<page size='4' unit='M'/><page size='8' unit='M'/>"
    )
    found = list(demand.portions(guest(1536, pages, CELLS), M2))
    assert [portion.size_kib for portion in found] == [4096, G1]
    plain = list(demand.portions(guest(1024, "<page size='4' unit='M'/><page size='8'/>"), M2))
    assert [portion.size_kib for portion in plain] == [4096]
