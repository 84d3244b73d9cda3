# SPDX-License-Identifier: GPL-2.0-or-later
"""Which guests are placed now, and what the planner is asked; it is asked, not run, here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.plugins.vm_pinning.test_controller import HOST, active
from tuned_virt import placement
from tuned_virt.guests.manager import Claim
from tuned_virt.guests.tracker import TrackedGuest
from tuned_virt.kernel import numa_maps
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.kernel.numa_maps import Area
from tuned_virt.model.guest import Guest, HugePages
from tuned_virt.model.topology import Host, NumaNode
from tuned_virt.placement import (
    MemoryPlacement,
    Placement,
    PlacementKind,
    PlacementMode,
    PlacementPolicy,
)
from tuned_virt.placement.policy import EmulatorMode
from tuned_virt.plugins.vm_pinning import policy
from tuned_virt.plugins.vm_pinning.already_running import bound, local_node, spread
from tuned_virt.plugins.vm_pinning.held_placements import HeldPlacement
from tuned_virt.plugins.vm_pinning.placement_controller import (
    PlacementController,
    PlacementDecision,
    _more_free,
)

GIB = 1 << 20

PLACED = Placement(
    "a",
    "a",
    PlacementKind.SHARED,
    (0,),
    {0: "0-1"},
    "0-1",
    {1: "0-1"},
    MemoryPlacement("move", "0"),
    "why",
)


class Link:
    def __init__(self, xml: str = HOST) -> None:
        self.xml = xml

    def capabilities(self) -> str:
        return self.xml


class Asked:
    """A planner that notes what it is asked, and puts each guest on node 0."""

    def __init__(self) -> None:
        self.hosts: list[Host] = []
        self.guests: list[dict[str, Guest]] = []
        self.policies: list[Mapping[str, PlacementPolicy]] = []
        self.current: list[Mapping[str, Placement]] = []
        self.warnings: tuple[str, ...] = ()

    def plan(
        self,
        host: Host,
        guests: list[Guest],
        policies: Mapping[str, PlacementPolicy],
        current: Mapping[str, Placement],
    ) -> placement.PlacementPlan:
        self.hosts.append(host)
        self.guests.append({one.uuid: one for one in guests})
        self.policies.append(policies)
        self.current.append(current)
        made = [replace(PLACED, guest=name, uuid=name) for name in policies]
        return placement.PlacementPlan(tuple(made), self.warnings)

    @property
    def rebalance(self) -> dict[str, int]:
        """Moves allowed, as it was asked last."""
        return {uuid: one.rebalance for uuid, one in self.policies[-1].items()}


class Scene:
    """Guests that run, each with a claim, on a host of two nodes."""

    def __init__(self, root: Path) -> None:
        self.fs = KernelFS(root)
        self.link: Any = Link()
        self.asked = Asked()
        self.decider = PlacementController(self.fs, self.asked.plan)
        self.seen: dict[str, TrackedGuest] = {}
        self.claims: dict[str, Claim[policy.PinningPolicy]] = {}
        self.held: dict[str, HeldPlacement] = {}
        link: Any = self.link
        self.decider.prepare(link, {})

    def start(self, name: str, fresh: bool = True, **options: str) -> None:
        guest = Guest(name, name, vcpus=1, memory=1024)
        self.seen[name] = TrackedGuest(active("", name), name, 7, 1, guest, "", 0.0, fresh)
        self.claims[name] = Claim(name, policy.parse(options))

    def stop(self, name: str) -> None:
        del self.seen[name], self.claims[name]
        self.held.pop(name, None)

    def decide(self, again: bool = False) -> PlacementDecision:
        found = self.decider.decide(self.link, self.seen, self.claims, self.held, again)
        for key, placed in found.placements.items():
            self.held[key] = HeldPlacement(key, key, key, key, 7, placed)
        return found


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    on_one = Area(0, 1 << 26, 4, {1: 65536})
    monkeypatch.setattr(numa_maps, "read", lambda *_: [on_one])
    return Scene(tmp_path)


# --- when the planner is asked --------------------------------------------------------------------


def test_it_is_asked_once_for_what_does_not_change(scene: Scene) -> None:
    scene.start("a")
    first = scene.decide()
    assert scene.decide() == first
    assert len(scene.asked.policies) == 1
    scene.decide(again=True)
    assert len(scene.asked.policies) == 2


def test_it_is_asked_when_a_guest_comes_or_changes(scene: Scene) -> None:
    scene.start("a")
    scene.decide()
    scene.start("b")
    scene.decide()
    assert [set(one) for one in scene.asked.policies] == [{"a"}, {"a", "b"}]
    assert [set(one) for one in scene.asked.current] == [set(), {"a"}]
    grown = replace(scene.seen["a"], guest=Guest("a", "a", vcpus=2, memory=1024))
    scene.seen["a"] = grown
    scene.decide()
    assert scene.asked.guests[-1]["a"].vcpus == 2


def test_it_is_asked_when_the_host_changes(scene: Scene, tmp_path: Path) -> None:
    scene.start("a")
    scene.decide()
    scene.link.xml = HOST.replace("4194304", "8388608")
    scene.decide()
    assert len(scene.asked.hosts) == 1, "nothing says that it has"
    folder = tmp_path / "sys/devices/system/cpu"
    folder.mkdir(parents=True)
    (folder / "online").write_text("0-3\n")
    scene.decide()
    assert [host.nodes[0].memory for host in scene.asked.hosts] == [4194304, 8388608]


def test_it_is_asked_when_a_cpuset_leaves_guests_other_cpus(scene: Scene, tmp_path: Path) -> None:
    """systemctl set-property machine.slice AllowedCPUs=2-3, while guests run."""
    folder = tmp_path / "sys/devices/system/cpu"
    folder.mkdir(parents=True)
    (folder / "online").write_text("0-3\n")
    scene.start("a")
    scene.decide()
    confined = tmp_path / "sys/fs/cgroup/machine.slice/cpuset.cpus.effective"
    confined.parent.mkdir(parents=True)
    confined.write_text("2-3\n")
    for _ in range(2):
        scene.decide()
    sets = [dict(host.cpusets) for host in scene.asked.hosts]
    assert sets == [{}, {"/machine": frozenset({2, 3})}]


def test_a_host_that_is_not_read_is_said_and_nothing_is_placed(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.link = Link("<capabilities/>")
    scene.start("a")
    scene.start("late", grace="60")
    scene.seen["late"] = replace(scene.seen["late"], since=time.monotonic())
    found = scene.decide()
    assert found.placements == {}
    assert set(found.remarks) == {"late"}
    assert found.wait == pytest.approx(60, abs=30)
    [said] = [one.message for one in caplog.records]
    start = "vm_pinning: no guest is placed: libvirt's capabilities: "
    assert said.startswith(start)
    assert said not in (start, f"{start}None")
    assert scene.asked.hosts == []


def test_warnings_are_said_when_they_change(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.asked.warnings = ("CPU 3 is pinned twice",)
    scene.start("a")
    scene.decide()
    scene.decide(again=True)
    assert [one.message for one in caplog.records] == ["vm_pinning: CPU 3 is pinned twice"]


# --- moves ----------------------------------------------------------------------------------------


def test_a_guest_moves_only_when_another_has_stopped(scene: Scene) -> None:
    for name in "abc":
        scene.start(name, rebalance="on_stop" if name != "c" else "never")
    scene.decide()
    assert scene.asked.rebalance == {"a": 0, "b": 0, "c": 0}
    scene.decide(again=True)
    assert scene.asked.rebalance == {"a": 0, "b": 0, "c": 0}
    scene.stop("b")
    scene.decide()
    assert scene.asked.rebalance == {"a": 1, "c": 0}, "one move, of who says so"
    scene.start("d", rebalance="on_stop")
    scene.decide()
    assert scene.asked.rebalance == {"a": 0, "c": 0, "d": 0}, "none when one starts"


def test_a_guest_that_nobody_placed_makes_room_too_when_it_stops(scene: Scene) -> None:
    scene.start("a", rebalance="on_stop")
    scene.start("other")
    del scene.claims["other"]
    scene.decide()
    assert set(scene.asked.guests[-1]) == {"a", "other"}
    del scene.seen["other"]
    scene.decide()
    assert scene.asked.rebalance == {"a": 1}


def test_where_its_memory_is_counts_when_a_policy_changes_and_not_when_a_guest_comes_or_goes(
    scene: Scene,
) -> None:
    """Its memory cannot follow it."""
    scene.start("a")
    locked = Guest("a", "a", vcpus=1, memory=1024, locked=True)
    scene.seen["a"] = replace(scene.seen["a"], guest=locked)
    scene.start("b")
    scene.decide()
    assert scene.asked.guests[-1]["a"].resident == {1: 65536}, "before its first pin"
    scene.start("c")
    scene.decide()
    assert scene.asked.guests[-1]["a"].resident == {}
    scene.stop("b")
    scene.decide()
    assert scene.asked.guests[-1]["a"].resident == {}
    scene.claims["c"] = Claim("c", policy.parse({"policy": "dedicated"}))
    scene.decide()
    assert scene.asked.guests[-1]["a"].resident == {1: 65536}


def test_only_placements_of_guests_that_run_are_in_force(scene: Scene) -> None:
    scene.start("a")
    scene.start("left", fresh=False, running="leave")
    found = scene.decide()
    scene.held["left"] = found.remarks["left"]
    scene.held["gone"] = HeldPlacement("gone", "gone", "gone", "gone", 7, PLACED)
    scene.decide(again=True)
    assert scene.asked.current[-1].keys() == {"a"}


def test_a_guest_that_is_left_alone_is_not_placed_whatever_the_planner_says(scene: Scene) -> None:
    """The planner says something of each guest, also of those in no selection."""
    scene.start("a")
    scene.start("left", fresh=False, running="leave")
    said = placement.PlacementPlan(
        tuple(replace(PLACED, guest=name, uuid=name) for name in ("a", "left")), ()
    )
    scene.decider = PlacementController(scene.fs, lambda *_: said)
    found = scene.decide()
    assert set(found.placements) == {"a"}
    assert set(found.remarks) == {"left"}


# --- guests that ran before -----------------------------------------------------------------------


def test_a_guest_that_ran_before_floats_on_the_node_of_its_memory(scene: Scene) -> None:
    scene.start("a", fresh=False, policy="dedicated", emulator="housekeeping")
    found = scene.decide()
    asked = scene.asked.policies[-1]["a"]
    assert asked.policy is PlacementMode.NODE
    assert asked.emulator is EmulatorMode.HOUSEKEEPING
    assert scene.asked.guests[-1]["a"].resident == {1: 65536}
    why = found.placements["a"].why
    assert (
        why
        == "it was running before, on node 1, which has no room for it: not placed (running=local)"
    )
    assert found.placements["a"].kind is PlacementKind.UNPLACED
    assert found.placements["a"].ungranted == "policy=dedicated"


def test_one_that_ran_before_is_not_dedicated_and_that_is_told(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numa_maps, "read", lambda *_: [Area(0, 1 << 26, 4, {0: 65536})])
    scene.start("d", fresh=False, policy="dedicated")
    scene.start("n", fresh=False)
    found = scene.decide().placements
    assert found["d"].ungranted == "policy=dedicated"
    assert found["d"].why == ("why; it was running before, so it is not dedicated (running=local)")
    assert (found["n"].ungranted, found["n"].why) == ("", "why")
    monkeypatch.setattr(numa_maps, "read", lambda *_: [Area(0, 1 << 26, 4, {0: 32768, 1: 32768})])
    scene.start("s", fresh=False, policy="dedicated")
    assert scene.decide().remarks["s"].ungranted == "policy=dedicated"


def test_one_that_is_to_be_left_stays_left(scene: Scene) -> None:
    scene.start("a", fresh=False, policy="none")
    scene.decide()
    assert scene.asked.policies[-1]["a"].policy is PlacementMode.NONE


def test_running_says_what_becomes_of_it(scene: Scene) -> None:
    scene.start("p", fresh=False, running="place", policy="dedicated")
    scene.start("l", fresh=False, running="leave")
    found = scene.decide()
    assert scene.asked.policies[-1].keys() == {"p"}
    assert scene.asked.policies[-1]["p"].policy is PlacementMode.DEDICATED
    assert scene.asked.guests[-1]["p"].resident == {1: 65536}
    assert scene.asked.guests[-1]["l"].resident == {}, "it was not there when the host was measured"
    assert found.placements["p"].nodes == (0,)
    left = found.remarks["l"]
    assert left.placement.why == (
        "it was running before the profile was activated (running=leave): placed when it starts"
        " again"
    )
    assert (left.key, left.uuid, left.device, left.name, left.pid) == ("l", "l", "l", "web1", 7)
    assert (left.placement.guest, left.placement.uuid) == ("web1", "l")
    assert (left.placement.kind, left.placement.chosen) == (PlacementKind.UNPLACED, True)
    assert not left.planned


def test_memory_that_is_spread_leaves_it_alone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = Area(0, 1 << 26, 4, {0: 50, 1: 50})
    monkeypatch.setattr(numa_maps, "read", lambda *_: [half])
    scene.start("a", fresh=False)
    found = scene.decide()
    assert found.placements == {}
    assert found.remarks["a"].placement.why == (
        "it was running before, with its memory spread (50 % on node 0, 50 % on node 1): not"
        " placed (running=local)"
    )


def test_its_memory_is_measured_once_a_run(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def read(fs: KernelFS, pid: int) -> list[Area]:
        assert fs is scene.fs
        looks.append(pid)
        return [Area(0, 1 << 26, 4, {1: 65536})] if len(looks) > 1 else []

    monkeypatch.setattr(numa_maps, "read", read)
    scene.start("a", fresh=False, running="place")
    for _ in range(3):
        scene.decide(again=True)
        scene.held.clear()
    assert looks == [7, 7], "again only while it was not to be seen"
    again = scene.seen["a"]
    scene.seen, claims, scene.claims = {}, scene.claims, {}
    scene.decide()
    scene.seen, scene.claims = {"a": again}, claims
    scene.decide()
    assert looks == [7, 7, 7]


def test_a_guest_whose_process_is_not_to_be_seen_has_no_known_memory(scene: Scene) -> None:
    scene.start("a", fresh=False)
    scene.seen["a"] = replace(scene.seen["a"], pid=0)
    found = scene.decide()
    assert found.remarks["a"].placement.why == (
        "it was running before, and the location of its memory is unknown: not placed"
        " (running=local)"
    )


def test_a_guest_that_was_placed_keeps_its_policy(scene: Scene) -> None:
    scene.start("a", fresh=False, policy="dedicated")
    scene.held["a"] = HeldPlacement("a", "a", "a", "a", 7, PLACED)
    scene.decide()
    assert scene.asked.policies[-1]["a"].policy is PlacementMode.DEDICATED


# --- guests that start ----------------------------------------------------------------------------


def test_grace_waits_for_the_guest_that_is_ready_first(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 10.0)
    for name, grace in (("a", "30"), ("b", "20"), ("c", "60"), ("d", "10"), ("e", "0")):
        scene.start(name, grace=grace)
    found = scene.decide()
    assert found.wait == 10.0
    assert set(found.placements) == {"d", "e"}
    assert found.remarks["a"].placement.why == (
        "it is booting, and is placed 30 s after its start (grace)"
    )
    monkeypatch.setattr(time, "monotonic", lambda: 19.5)
    assert "b" in scene.decide().remarks, "half a second is left"
    monkeypatch.setattr(time, "monotonic", lambda: 90.0)
    later = scene.decide()
    assert (later.wait, set(later.placements)) == (None, set("abcde"))


def test_a_guest_that_is_not_understood_is_left_alone(scene: Scene) -> None:
    scene.start("a")
    scene.seen["a"] = replace(scene.seen["a"], guest=None, error="line 3: no <vcpu>")
    found = scene.decide()
    assert found.remarks["a"].placement.why == "line 3: no <vcpu>"
    assert scene.asked.guests[-1] == {}


# --- memory by node -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resident", "node"),
    [
        ({0: 80, 1: 20}, 0),
        ({0: 79, 1: 21}, None),
        ({0: 1, 3: 99}, 3),
        ({0: 0}, None),
        ({0: 0, 1: 1}, 1),
        ({}, None),
    ],
)
def test_four_fifths_of_its_memory_make_a_node_its_own(
    resident: Mapping[int, int], node: int | None
) -> None:
    assert local_node(resident) == node


def test_spread_memory_in_words() -> None:
    assert spread({0: 2, 1: 1}) == (
        "with its memory spread (66 % on node 0, 33 % on node 1): not placed (running=local)"
    )
    assert spread({0: 0}) == "and the location of its memory is unknown: not placed (running=local)"


def test_what_is_bound_to_a_node_is_there_or_nowhere() -> None:
    assert bound(PLACED, None) is PLACED
    assert bound(PLACED, 0) is PLACED
    for kind in (PlacementKind.UNPLACED, PlacementKind.OWNER):
        there = replace(PLACED, kind=kind)
        assert bound(there, 1) is there
    away = bound(PLACED, 1)
    assert away == Placement(
        "a", "a", PlacementKind.UNPLACED, (), {}, "", {}, None,
        "it was running before, on node 1, which has no room for it: not placed"
        " (running=local)", True,
    )  # fmt: skip
    assert bound(replace(PLACED, nodes=(0, 1)), 0).kind is PlacementKind.UNPLACED


def test_the_host_is_read_before_the_first_guest_comes(scene: Scene) -> None:
    scene.link.xml = "<capabilities/>"
    scene.start("a")
    assert scene.decide().placements


# --- what is free on the host ---------------------------------------------------------------------


class Machine:
    """Guests placed by the planner on a host of two nodes, of which the kernel tells what is free.

    Sizes in GiB; HOST has 4 GiB a node.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.decider = PlacementController(KernelFS(root))
        self.seen: dict[str, TrackedGuest] = {}
        self.claims: dict[str, Claim[policy.PinningPolicy]] = {}
        self.held: dict[str, HeldPlacement] = {}
        self.link: Any = Link()

    def has_free(self, *gib: float, pages: int = 0) -> None:
        (self.root / "sys/devices/system/cpu").mkdir(parents=True, exist_ok=True)
        (self.root / "sys/devices/system/cpu/online").write_text("0-3\n")
        for node, free in enumerate(gib):
            folder = self.root / f"sys/devices/system/node/node{node}"
            pool = folder / "hugepages/hugepages-2048kB"
            pool.mkdir(parents=True, exist_ok=True)
            (folder / "meminfo").write_text(f"Node {node} MemFree: {int(free * 2**20)} kB\n")
            (pool / "nr_hugepages").write_text(str(pages))
            (pool / "free_hugepages").write_text(str(pages))

    def start(self, name: str, gib: float, **more: Any) -> Placement:
        guest = Guest(name, name, vcpus=1, memory=int(gib * 2**20), **more)
        self.seen[name] = TrackedGuest(active("", name), name, 7, 1, guest, "", 0.0, True)
        self.claims[name] = Claim(name, policy.parse({"overcommit": "4"}))
        return self.look()[name]

    def look(self) -> dict[str, Placement]:
        found = self.decider.decide(self.link, self.seen, self.claims, self.held, False)
        for key, placed in found.placements.items():
            self.held[key] = HeldPlacement(key, key, key, key, 7, placed)
        return {key: one.placement for key, one in self.held.items()}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(numa_maps, "read", lambda *_: [])
    made = Machine(tmp_path)
    made.has_free(3.5, 3.5)
    made.decider.prepare(made.link, {})
    return made


HUGE = (HugePages(2048),)


def test_a_pool_that_was_made_later_is_seen(host: Machine) -> None:
    assert host.start("early", 1, huge_pages=HUGE).kind is PlacementKind.UNPLACED
    host.has_free(1.5, 1.5, pages=1024)
    assert host.look()["early"].kind is PlacementKind.SHARED, "at the next look"
    assert host.start("late", 1, huge_pages=HUGE).kind is PlacementKind.SHARED


def test_memory_that_was_freed_is_seen_when_a_guest_lacks_it(host: Machine) -> None:
    host.has_free(0.3, 0.3)
    host.link = Link(HOST.replace("</capabilities>", "<!-- --></capabilities>"))
    assert host.start("a", 1).kind is PlacementKind.UNPLACED
    host.has_free(0.4, 0.3)
    assert host.look()["a"].kind is PlacementKind.UNPLACED
    host.has_free(3.5, 0.3)
    assert host.look()["a"].nodes == (0,)


def test_a_restarted_libvirt_does_not_make_guests_count_twice(
    host: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {host.start(name, 1.5).nodes for name in ("a", "b")} == {(0,), (1,)}
    host.has_free(2, 2)
    host.link = Link()
    assert host.start("c", 1.5).kind is PlacementKind.SHARED
    changed = HOST.replace("</capabilities>", "<!-- --></capabilities>")
    monkeypatch.setattr(numa_maps, "read", lambda *_: [Area(0, 1 << 26, 4, {0: 1572864})])
    host.link = Link(changed)
    host.has_free(0.5, 2)
    assert host.start("d", 1.5).kind is PlacementKind.SHARED, "measured with what its guests have"


def test_free_memory_is_not_looked_at_while_all_have_a_place(
    host: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.start("a", 1)
    monkeypatch.setattr(PlacementController, "_measure_host", None)
    host.has_free(3.9, 3.9, pages=64)
    host.look()
    assert host.start("b", 1).kind is PlacementKind.SHARED


@pytest.mark.parametrize(
    ("before", "now", "more"),
    [
        ((GIB, {}), (GIB + 256 * 1024, {}), True),
        ((GIB, {}), (GIB + 256 * 1024 - 1, {}), False),
        ((GIB, {}), (None, None), False),
        ((None, None), (256 * 1024, None), True),
        ((GIB, {2048: 4}), (GIB, {2048: 4}), False),
        ((GIB, {2048: 4}), (GIB, {2048: 5}), True),
        ((GIB, {2048: 4}), (GIB, {2048: 4, GIB: 1}), True),
        ((GIB, {2048: 4}), (GIB, {2048: 4, GIB: 0}), False),
        ((GIB, None), (GIB, {2048: 1}), True),
    ],
)
def test_what_is_worth_another_plan(
    before: tuple[Any, Any], now: tuple[Any, Any], more: bool
) -> None:
    """256 MiB on a node, or a huge page."""
    nodes = [NumaNode(0, frozenset(), 0, {}, {}, *measured) for measured in (before, now)]
    assert _more_free(*nodes) is more


def test_a_guest_whose_memory_cannot_be_read_is_left_alone_until_it_can(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its vCPUs might be parted from it; that is not "no memory anywhere"."""

    def unreadable(_fs: KernelFS, pid: int) -> list[Area]:
        raise KernelFileError(f"/proc/{pid}/numa_maps", "Input/output error")

    real = numa_maps.read
    monkeypatch.setattr(numa_maps, "read", unreadable)
    scene.start("local", fresh=False)
    scene.start("place", fresh=False, running="place")
    scene.start("leave", fresh=False, running="leave")
    scene.start("locked")
    guest = Guest("locked", "locked", vcpus=1, memory=1024, locked=True)
    scene.seen["locked"] = replace(scene.seen["locked"], guest=guest)
    scene.start("fresh")
    found = scene.decide()
    assert found.placements.keys() == {"fresh"}
    why = "the location of its memory: cannot read /proc/7/numa_maps: Input/output error"
    for name in ("local", "place", "locked"):
        assert found.remarks[name].placement.why == why
        assert found.remarks[name].ungranted == "a place with its memory", "so verify fails"
    assert "running=leave" in found.remarks["leave"].placement.why
    monkeypatch.setattr(numa_maps, "read", real)
    assert scene.decide().placements.keys() == {"local", "place", "locked", "fresh"}
