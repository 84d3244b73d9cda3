# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages as libvirt will ask for them: memory devices, guests that could not start, nodes without
CPUs, and pages that nobody asks for any more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.core.test_plan_runner import wait_until
from tests.unit.hugetlb import G1, M2, Counts, FakeHugetlb, Memory
from tests.unit.plugins.hugepages_numa.test_demand import Guests, bound, guest, one
from tuned_virt.core.engine import Engine
from tuned_virt.core.guest_source import FixedGuests
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.core.plan import Plan
from tuned_virt.core.plan_runner import PlanRunner
from tuned_virt.libvirt_api.guest_pages import Asking
from tuned_virt.model import topology
from tuned_virt.model.guest import read_guest
from tuned_virt.model.topology.huge_pages import Pool
from tuned_virt.plugins import hugepages_numa
from tuned_virt.plugins.hugepages_numa import HugepagesTuner, demand, planner, state
from tuned_virt.plugins.hugepages_numa.history import DemandHistory
from tuned_virt.plugins.hugepages_numa.setting_types import PoolSetting

GIB = 1 << 20
MIB = 1 << 10

XML = """
<domain type='kvm'><name>g</name><uuid>11111111-2222-3333-4444-666666666666</uuid>
<maxMemory slots='16' unit='GiB'>1024</maxMemory><memory unit='MiB'>{memory}</memory>
<vcpu>4</vcpu><memoryBacking>{pages}</memoryBacking>
<os><type arch='x86_64' machine='q35'>hvm</type></os>
<cpu><numa><cell id='0' cpus='0-1' memory='1' unit='GiB'/>
<cell id='1' cpus='2-3' memory='1' unit='GiB'/></numa></cpu>
<numatune>{tune}</numatune><devices>{devices}</devices></domain>
"""
HUGE = "<hugepages><page size='2' unit='M'/></hugepages>"


def device(
    size: int, *more: str, model: str = "virtio-mem", source: str = "", node: int = 0
) -> str:
    """A memory device; sizes are in MiB, as `requested` and `current` in `more`."""
    names = ("requested", "current")
    inside = "".join(f"<{n} unit='MiB'>{v}</{n}>" for n, v in zip(names, more))
    target = f"<size unit='MiB'>{size}</size><node>{node}</node>{inside}"
    return f"<memory model='{model}'><source>{source}</source><target>{target}</target></memory>"


def asking(
    *devices: str, pages: str = HUGE, tune: str = "", memory: int = 2048, running: bool = False
) -> Asking:
    xml = XML.format(memory=memory, pages=pages, tune=tune, devices="".join(devices))
    return one(read_guest(xml), running)


PAGE_1G = "<pagesize unit='GiB'>1</pagesize><nodemask>3</nodemask>"
PAGE_4K = "<pagesize unit='KiB'>4</pagesize>"
PAGE_2M = "<pagesize unit='MiB'>2</pagesize>"
CELL_1 = "<memnode cellid='1' mode='strict' nodeset='2'/>"


@pytest.mark.parametrize(
    ("asks", "expected"),
    [
        (asking(device(4096, "0"), memory=6144), [(M2, 1024), (M2, 1024)]),
        (asking(device(4096, "512"), memory=6144), [(M2, 1024), (M2, 512), (M2, 1024)]),
        (asking(device(4096, "512", "768")), [(M2, 1024), (M2, 768), (M2, 1024)]),
        (asking(device(512, model="dimm")), [(M2, 1024), (M2, 512), (M2, 1024)]),
        (asking(device(512, model="dimm", source=PAGE_4K)), [(M2, 1024), (M2, 1024)]),
        (asking(device(512, model="dimm", source=PAGE_2M), pages=""), [(M2, 512)]),
        (asking(device(8192, model="dimm", source=PAGE_1G), pages=""), [(G1, 8192, 3)]),
        (
            asking(device(512, model="dimm", node=1), tune=CELL_1),
            [(M2, 1024), (M2, 1024, 2), (M2, 512, 2)],
        ),
        (asking(pages="<hugepages><page size='4' unit='KiB'/></hugepages>"), []),
        (asking(device(512, model="nvdimm")), [(M2, 1024), (M2, 1024)]),
        (asking(device(4096, "1024", "256"), running=True), [(M2, 768)]),
        (asking(device(4096, "1024", "1024"), running=True), []),
    ],
)
def test_what_libvirt_will_ask_for(asks: Asking, expected: list[tuple[int, ...]]) -> None:
    """In MiB, with the node where one is named."""
    assert asks.guest is not None
    found = (demand.growing if asks.running else demand.portions)(asks.guest, M2)
    assert [(one.size_kib, one.memory // MIB, *one.nodes) for one in found] == expected


def test_a_virtio_mem_device_counts_with_what_is_requested_of_it() -> None:
    """8 GiB at boot, 192 GiB elastic: not 192 GiB of a 256 GiB node."""
    idle = asking(device(192 * 1024, "0"), memory=2048 + 192 * 1024)
    assert idle.guest is not None
    assert (idle.guest.memory, idle.guest.cells[0].memory) == (2 * GIB, GIB)
    machine = FakeHugetlb({0: Memory(256 * GIB, 250 * GIB)})
    assert planned(machine, idle).wanted == {"pages_2M node0": "1024"}
    plugged = FakeHugetlb({0: Memory(64 * GIB, 40 * GIB)}, {(0, M2): Counts(1024, mapped=1024)})
    grows = asking(device(192 * 1024, "2048", "0"), memory=2048 + 192 * 1024, running=True)
    assert planned(plugged, grows).wanted == {"pages_2M node0": "2048"}


def planned(fs: FakeHugetlb, *guests: Asking, **options: str) -> Plan:
    policy = hugepages_numa.parse({"pages_2M": "guests", **options})
    known = FixedGuests({str(number): one for number, one in enumerate(guests)})
    return planner.plan(policy, state.read(fs, policy, {}, known), {})


def two() -> dict[int, Memory]:
    return {0: Memory(8 * GIB, 6 * GIB), 1: Memory(8 * GIB, 6 * GIB)}


@pytest.mark.parametrize(
    ("asks", "options", "refused"),
    [
        (
            one(guest(1024, "<page size='1' unit='G'/>")),
            {},
            "1 pages are requested, 0 are free; pages_1G=guests requests them",
        ),
        (one(guest(1024, "<page size='1' unit='G'/>")), {"pages_1G": "0:1"}, ""),
        (one(guest(1024, "<page size='1' unit='G'/>")), {"pages_1G": "guests"}, ""),
        (
            one(guest(976563 // 1024, "<page size='1' unit='GB'/>")),
            {},
            "huge pages of this machine are of 2M, 1G",
        ),
        (bound("7"), {}, "nodes with memory here are 0-1, not 7"),
        (bound("1", 7168), {}, "3584 pages are requested on node 1, 2662 are free"),
        (one(guest(1024, "<page size='2' unit='M' nodeset='0'/>")), {}, ""),
        (
            one(guest(1024, "<page size='2' unit='M' nodeset='1'/>")),
            {},
            "libvirt does not start it: <hugepages> names vNUMA cell 1, which it does not have",
        ),
        (
            asking(device(1024, model="dimm", source=PAGE_1G), pages=""),
            {},
            "nodes with memory here are 0-1, not 3",
        ),
        (one(guest(1024), running=True), {}, ""),
    ],
)
def test_a_guest_that_could_not_start_fails_verify_and_the_rest_is_applied(
    asks: Asking, options: dict[str, str], refused: str
) -> None:
    plan = planned(FakeHugetlb(two()), asks, bound("0", 512), **options)
    assert (refused in "".join(plan.refused.values())) if refused else plan.refused == {}
    assert bool(plan.refused) == bool(refused)
    assert int(plan.wanted["pages_2M node0"]) >= 256


def test_surplus_pages_serve_a_guest_too() -> None:
    machine = FakeHugetlb(two(), {(0, G1): Counts(4, mapped=3)})
    fits = one(guest(1024, "<page size='1' unit='G'/>"))
    assert planned(machine, fits).refused == {}
    large = one(guest(2048, "<page size='1' unit='G'/>"))
    assert "2 pages are requested, 1 are free" in str(planned(machine, large).refused)


class WithoutCpus(FakeHugetlb):
    """Node 2 is a CXL device's, or HBM."""

    def read(self, path: str) -> str:
        return "0-1" if path == f"{topology.NODES}/has_cpu" else super().read(path)


def test_nodes_without_cpus_come_last() -> None:
    memory = {0: Memory(256 * GIB, 200 * GIB), 1: Memory(256 * GIB, 200 * GIB)}
    memory[2] = Memory(512 * GIB, 511 * GIB)
    three = [one(guest(16 * 1024))] * 3
    assert {name[-5:] for name in planned(WithoutCpus(dict(memory)), *three).wanted} == {
        "node0",
        "node1",
        "node2",
    }
    wanted = planned(WithoutCpus(dict(memory)), *three).wanted
    assert wanted["pages_2M node2"] == "0"
    assert {wanted["pages_2M node0"], wanted["pages_2M node1"]} == {"8192", "16384"}
    large = planned(WithoutCpus(dict(memory)), one(guest(300 * 1024)))
    assert large.wanted["pages_2M node2"] == str(300 * 512)
    assert large.notes[0] == (
        "pages_2M node2: 153600 pages for guests that name no node: it has no CPUs, but no node"
        " with CPUs has room for them"
    )
    named = planned(WithoutCpus(dict(memory)), bound("2"))
    assert (named.wanted["pages_2M node2"], named.notes) == ("512", ())
    everywhere = planned(WithoutCpus(dict(memory)), pages_2M="all:10%")
    assert "'all:10%' takes memory of node 2 too, without CPUs" in everywhere.notes[0]
    assert planned(WithoutCpus(dict(memory)), pages_2M="all:10%,2:0").notes == ()


# --- pages for a guest's life ---------------------------------------------------------------------


def test_what_was_asked_for_lately() -> None:
    now = 100.0
    history = DemandHistory(lambda: now)
    node = PoolSetting(0, M2)
    assert history.most({node: 5}, 60) is None, "nothing is known of the time before"
    now = 159.0
    assert history.most({node: 2}, 60) is None
    now = 160.0
    assert history.most({node: 2}, 60) == {node: 5}
    now = 219.0
    assert history.most({}, 60) == {node: 2}
    now = 278.0
    assert history.most({}, 60) == {node: 2}
    now = 279.0
    assert history.most({}, 60) == {}
    assert history.most(None, 60) is None, "libvirt is unavailable"
    assert history.most({}, 60) is None
    assert DemandHistory(lambda: now).most({node: 1}, 0) == {node: 1}


def test_pools_give_back_what_nobody_asks_for_any_more(tmp_path: Path) -> None:
    fs = FakeHugetlb(
        {node: Memory(8 * GIB, 6 * GIB) for node in (0, 1)},
        {(0, M2): Counts(10), (1, M2): Counts()},
    )
    libvirt = Guests()
    runner = PlanRunner(
        Engine(
            HugepagesTuner(libvirt, tmp_path),
            fs,
            Originals(tmp_path, "boot"),
            Journal(tmp_path / "journal"),
        )
    )
    asked = {"pages_2M": "guests", "shrink": "on_stop", "shrink_delay": "0"}
    runner.apply(hugepages_numa.parse(asked))
    libvirt.now(bound("0"), bound("1"))
    wait_until(lambda: (fs.pools[0, M2].nr, fs.pools[1, M2].nr) == (512, 512))
    fs.pools[1, M2].mapped = 100
    libvirt.now()
    wait_until(lambda: (fs.pools[0, M2].nr, fs.pools[1, M2].nr) == (10, 100))
    libvirt.now(bound("0"))
    wait_until(lambda: fs.pools[0, M2].nr == 512)
    runner.restore()
    wait_until(lambda: fs.persistent()[0, M2] == 10)


class Nodes:
    """Memory that comes later."""

    changed: Callable[[str], None] | None = None

    def start(self, changed: Callable[[str], None]) -> None:
        self.changed = changed

    def stop(self) -> None:
        pass


@pytest.mark.large
def test_nodes_that_come_later_are_followed(tmp_path: Path) -> None:
    fs = FakeHugetlb({0: Memory(8 * GIB, 6 * GIB)})
    nodes = Nodes()
    tuner = HugepagesTuner(folder=tmp_path, nodes=nodes)
    engine = Engine(tuner, fs, Originals(tmp_path, "boot"), Journal(tmp_path / "journal"))
    runner = PlanRunner(engine)
    runner.apply(hugepages_numa.parse({"pages_2M": "all:100"}))
    wait_until(lambda: fs.pools[0, M2].nr == 100)
    fs.memory[2] = Memory(8 * GIB, 6 * GIB)
    fs.pools[2, M2] = Counts()
    wait_until(lambda: nodes.changed is not None)
    assert nodes.changed is not None
    nodes.changed("online memory9")
    wait_until(lambda: fs.pools[2, M2].nr == 100)
    runner.restore()


def test_a_size_that_does_not_follow_the_setting_for_all() -> None:
    policy = hugepages_numa.parse({"transparent_hugepages": "always", "shmem_enabled": "advise"})
    now = state.HugepagesState(
        transparent={"transparent_hugepages": "madvise", "shmem_enabled": "never"},
        transparent_sizes={64: "never", M2: "never"},
    )
    plan = hugepages_numa.plan(policy, now, {})
    folder = "/sys/kernel/mm/transparent_hugepage"
    assert plan.notes == (
        "transparent_hugepages=always has no effect on pages of 2M:"
        f" {folder}/hugepages-2048kB/enabled is never, not inherit",
    )
    assert f"{folder}/shmem_enabled" in {change.path for change in plan.changes}
    inherits = replace(now, transparent_sizes={64: "never", M2: "inherit"})
    assert hugepages_numa.plan(policy, inherits, {}).notes == ()


def found(asks: Asking, running: bool = False, base: int = 4) -> list[tuple[int, int]]:
    """Page size, and MiB in such pages."""
    assert asks.guest is not None
    portions = demand.growing if running else demand.portions
    return [(one.size_kib, one.memory // MIB) for one in portions(asks.guest, M2, base)]


def test_the_pages_of_a_device_are_its_own_its_cells_or_the_default() -> None:
    grows = device(1024, "1024", "512")
    assert found(asking(grows, pages="<hugepages/>", memory=3072)) == [(M2, 1024)] * 3
    assert found(asking(grows, pages="<hugepages/>"), running=True) == [(M2, 512)]
    pages = "<page size='1' unit='G' nodeset='1'/><page size='2' unit='M' nodeset='0'/>"
    second = asking(device(1024, "1024", "0", node=1), pages=f"<hugepages>{pages}</hugepages>")
    assert found(second, running=True) == [(G1, 1024)]
    for base in (4, 64):
        source = f"<pagesize unit='KiB'>{base}</pagesize>"
        plain = asking(device(1024, "1024", "512", source=source))
        assert found(plain, running=True, base=base) == []
    assert plain.guest is not None
    assert [one.size_kib for one in demand.growing(plain.guest, M2)] == [64]


def test_nodes_without_cpus_get_what_just_fits_nowhere_else() -> None:
    made = {PoolSetting(n, M2): Pool(n, M2, 0, 0, 0) for n in (0, 2)}
    crowd = [one(guest(1024, "<page size='2' unit='M'/>")) for _ in range(3)]
    fits = demand.spread(crowd, made, M2, {0: GIB, 2: 9 * GIB}, {2})
    assert fits.pages == {PoolSetting(0, M2): 512, PoolSetting(2, M2): 1024}
    assert fits.far == {PoolSetting(2, M2): 1024}
    assert demand.asked([one(guest(1024))], made, M2, {0: GIB, 2: 0}) == {PoolSetting(0, M2): 512}
