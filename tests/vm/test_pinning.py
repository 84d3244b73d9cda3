# SPDX-License-Identifier: GPL-2.0-or-later
"""vm_pinning on four nodes of two last-level caches each: real guests, threads and pages."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox import wait_for
from tests.vm.daemon import CONFIGURATION, Tuned
from tests.vm.libvirtd import SLOW_SECONDS, Libvirtd, affinities, pid_of, ram_by_node


@dataclass(frozen=True)
class Shape:
    """A guest: vCPUs, MiB and IOThreads."""

    vcpus: int
    mib: int
    iothreads: int = 0


SHAPES = {
    "a": Shape(1, 32),
    "b": Shape(2, 64, 1),
    "c": Shape(1, 48),
    "d": Shape(2, 64),
    "e": Shape(1, 32, 2),
    "f": Shape(2, 80),
    "g": Shape(1, 64),
    "h": Shape(2, 96, 1),
}
BIG = Shape(2, 128, 1)

EVERYWHERE = "0-7"
NODE_CPUS = ("0-1", "2-3", "4-5", "6-7")
LOCAL = 0.95
"""Part of a guest's RAM that has to be on the node of its threads."""

PAUSED = 1
"""VIR_DOMAIN_START_PAUSED: its threads are there, and burn nothing under two emulations."""

PROFILE = """
[main]
summary=guests inside nodes
[vm_pinning]
policy=node
overcommit=2
running=place
"""


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[Libvirtd]:
    daemon = Libvirtd(Path(os.environ["TUNED_VIRT_QEMU"]))
    yield daemon
    daemon.stop()


@pytest.fixture
def guests(libvirtd: Libvirtd) -> Iterator[Libvirtd]:
    yield libvirtd
    for domain in libvirtd.connection.listAllDomains():
        domain.destroy()


def profile(text: str) -> str:
    folder = CONFIGURATION / "pinning"
    folder.mkdir(exist_ok=True)
    (folder / "tuned.conf").write_text(text)
    return folder.name


def start(guests: Libvirtd, name: str, shape: Shape) -> None:
    guests.start_guest(name, shape.vcpus, shape.mib, iothreads=shape.iothreads, flags=PAUSED)


def masks(name: str) -> set[str]:
    """Where a guest's threads may run."""
    return set(affinities(name).values())


def node_of(name: str) -> int:
    """The node that all of a guest's threads are confined to."""
    [allowed] = masks(name)
    return NODE_CPUS.index(allowed)


def parts(name: str, shape: Shape) -> dict[int, float]:
    """Node → part of a guest's RAM there."""
    pages = ram_by_node(name, shape.mib)
    total = sum(pages.values())
    assert total >= (shape.mib << 20) // 4096 * 0.9, "all allocated, but for 2 MiB on their way"
    return {node: count / total for node, count in pages.items()}


def inside(names: Iterable[str]) -> Callable[[], bool]:
    """Whether each guest's threads are all confined to one node."""
    return lambda: all(len(masks(name)) == 1 and masks(name) <= set(NODE_CPUS) for name in names)


def wait_placed(shapes: dict[str, Shape]) -> dict[str, int]:
    """Until each guest's threads and memory are on one node; which."""
    wait_for(f"{', '.join(shapes)} pinned", inside(shapes), SLOW_SECONDS)
    nodes = {name: node_of(name) for name in shapes}

    def followed() -> bool:
        return all(parts(name, one).get(nodes[name], 0) >= LOCAL for name, one in shapes.items())

    try:
        wait_for("memory follows", followed, SLOW_SECONDS)
    finally:
        print("placed:", {name: (nodes[name], parts(name, one)) for name, one in shapes.items()})
    return nodes


def assert_verified(tuned: Tuned, count: int) -> None:
    verified, lines = tuned.verify()
    assert verified, lines
    assert lines.count("verify: passed: device") == count, lines


def put_back(name: str) -> bool:
    return masks(name) == {EVERYWHERE}


def assert_put_back(tuned: Tuned, names: Iterable[str]) -> None:
    tuned.off()
    for name in names:  # an emulated libvirt may seem to hang, and then off does not wait for it
        wait_for(f"{name} is put back", partial(put_back, name), SLOW_SECONDS)
    kept = Path("/run/tuned-virt/baseline.json")
    wait_for("nothing is kept", lambda: not kept.exists(), SLOW_SECONDS)


def test_running_guests_are_placed_all_at_once_and_stay_when_others_come_and_go(
    tuned: Tuned, guests: Libvirtd
) -> None:
    for name, shape in SHAPES.items():
        start(guests, name, shape)
    for name, shape in SHAPES.items():  # the same guests without us
        assert masks(name) == {EVERYWHERE}
        assert max(parts(name, shape).values()) < 0.5, "no node has most of its memory"

    tuned.switch(profile(PROFILE))
    places = wait_placed(SHAPES)
    assert len(set(places.values())) == len(NODE_CPUS), "12 vCPUs, 4 to a node"
    assert_verified(tuned, len(SHAPES))

    guests.stop_guest("a")
    guests.stop_guest("b")
    start(guests, "big", BIG)
    rest = {name: shape for name, shape in SHAPES.items() if name not in ("a", "b")}
    wait_placed({"big": BIG})
    assert {name: node_of(name) for name in rest} == {name: places[name] for name in rest}
    assert_verified(tuned, len(rest) + 1)

    assert_put_back(tuned, [*rest, "big"])
    assert pid_of("big")


def test_guests_are_placed_one_by_one_as_they_start(tuned: Tuned, guests: Libvirtd) -> None:
    tuned.switch(profile(PROFILE))
    places: dict[str, int] = {}
    for name, shape in SHAPES.items():
        start(guests, name, shape)
        places.update(wait_placed({name: shape}))
        assert {name: node_of(name) for name in places} == places, "those before stay"
    assert len(set(places.values())) == len(NODE_CPUS)
    assert_verified(tuned, len(SHAPES))
    assert_put_back(tuned, SHAPES)


def test_a_cpu_goes_offline_and_comes_back(tuned: Tuned, guests: Libvirtd) -> None:
    shapes = {"there": Shape(2, 32, 1)}
    start(guests, "there", shapes["there"])
    tuned.switch(profile(PROFILE))
    first, second = NODE_CPUS[wait_placed(shapes)["there"]].split("-")
    online = Path(f"/sys/devices/system/cpu/cpu{second}/online")
    try:
        online.write_text("0")
        wait_for("on the other CPU", lambda: masks("there") == {first}, SLOW_SECONDS)
        wait_for("placed anew", lambda: tuned.verify()[0], SLOW_SECONDS)
        assert f"vCPU 0-1 on {first}, emulator on {first}" in tuned.verify()[1]
    finally:
        online.write_text("1")
    wait_for("on both again", inside(shapes), SLOW_SECONDS)
    wait_for("placed anew", lambda: tuned.verify()[0], SLOW_SECONDS)
    assert_put_back(tuned, shapes)


LIMITS = """
[main]
summary=limits
[vm_limits]
memory_hard_limit=1G
memory_soft_limit=32M
swap_hard_limit=2G
cpu_shares=50
"""


def limits_of(domain: Any) -> tuple[dict[str, int], int]:
    return domain.memoryParameters(0), domain.schedulerParameters()["cpu_shares"]


def test_limits_are_set_and_put_back(tuned: Tuned, guests: Libvirtd) -> None:
    guests.start_guest("limited", 1, 32, flags=PAUSED)
    domain = guests.connection.lookupByName("limited")
    before = limits_of(domain)
    tuned.switch(profile(LIMITS))
    wait_for("limited", lambda: domain.schedulerParameters()["cpu_shares"] == 50, SLOW_SECONDS)
    assert domain.memoryParameters(0)["hard_limit"] == 1 << 20
    assert domain.memoryParameters(0)["swap_hard_limit"] == 2 << 20
    verified, lines = tuned.verify()
    assert verified, lines
    tuned.off()
    wait_for("as before", lambda: limits_of(domain) == before, SLOW_SECONDS)
