# SPDX-License-Identifier: GPL-2.0-or-later
"""vm_pinning on four nodes of two last-level caches each: real guests, threads and pages."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.sandbox import wait_for
from tests.vm.daemon import CONFIGURATION, Tuned
from tests.vm.libvirtd import SLOW_SECONDS, Libvirtd, affinities, pid_of, ram_by_node

MIB = 64
SHAPES = {"a": 1, "b": 2, "c": 1, "d": 2, "e": 1, "f": 2, "g": 1, "h": 2}
"""Guest → vCPUs."""

NODE_CPUS = ("0-1", "2-3", "4-5", "6-7")
PAUSED = 1
"""VIR_DOMAIN_START_PAUSED: its threads are there, and burn nothing under two emulations."""

PROFILE = """
[main]
summary=guests inside nodes
[vm_pinning]
policy=node
overcommit=8
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


def node_of(name: str) -> int:
    """The node that all of a guest's threads are confined to."""
    allowed = set(affinities(name).values())
    assert len(allowed) == 1, (name, affinities(name))
    return NODE_CPUS.index(allowed.pop())


def local(name: str, mib: int = MIB) -> float:
    """Part of a guest's RAM on the node of its threads."""
    pages = ram_by_node(name, mib)
    assert sum(pages.values()) >= (mib << 20) // 4096 * 0.9
    return pages.get(node_of(name), 0) / sum(pages.values())


def pinned(names: Sequence[str]) -> Callable[[], bool]:
    def all_inside() -> bool:
        return all(
            len(set(affinities(name).values())) == 1
            and set(affinities(name).values()) <= set(NODE_CPUS)
            for name in names
        )

    return all_inside


def followed(names: Sequence[str]) -> Callable[[], bool]:
    return lambda: all(local(name) >= 0.95 for name in names)


def test_guests_are_placed_all_at_once_and_as_they_start_and_put_back(
    tuned: Tuned, guests: Libvirtd
) -> None:
    for name, vcpus in SHAPES.items():
        guests.start_guest(name, vcpus, MIB, flags=PAUSED)
    names = list(SHAPES)
    without = {name: ram_by_node(name, MIB) for name in names}
    assert all(set(affinities(name).values()) == {"0-7"} for name in names)
    print("without us, pages by node:", without)
    assert any(max(pages.values()) < 0.95 * sum(pages.values()) for pages in without.values()) or (
        len({max(pages, key=lambda n: pages[n]) for pages in without.values()}) < 4
    )

    tuned.switch(profile(PROFILE))  # all at once
    wait_for("all pinned", pinned(names), SLOW_SECONDS)
    wait_for("memory follows", followed(names), SLOW_SECONDS)
    print("nodes:", {name: (node_of(name), local(name)) for name in names})
    assert len({node_of(name) for name in names}) > 1
    verified, lines = tuned.verify()
    assert verified, lines
    assert lines.count("verify: passed: device") == len(names), lines

    places = {name: node_of(name) for name in names}
    guests.stop_guest("a")
    guests.stop_guest("b")
    guests.start_guest("big", 2, 2 * MIB, iothreads=1, flags=PAUSED)  # as it starts
    wait_for("big pinned", pinned(["big"]), SLOW_SECONDS)
    wait_for("memory follows", lambda: local("big", 2 * MIB) >= 0.95, SLOW_SECONDS)
    rest = names[2:]
    assert {name: node_of(name) for name in rest} == {name: places[name] for name in rest}

    tuned.off()
    for name in [*rest, "big"]:
        assert set(affinities(name).values()) == {"0-7"}, affinities(name)
    assert not Path("/run/tuned-virt/baseline.json").exists()
    assert pid_of("big")


LIMITS = """
[main]
summary=limits
[vm_limits]
memory_hard_limit=1G
memory_soft_limit=32M
swap_hard_limit=2G
cpu_shares=50
"""


def test_limits_are_set_and_put_back(tuned: Tuned, guests: Libvirtd) -> None:
    guests.start_guest("limited", 1, MIB, flags=PAUSED)
    domain = guests.connection.lookupByName("limited")
    before = (domain.memoryParameters(0), domain.schedulerParameters()["cpu_shares"])
    tuned.switch(profile(LIMITS))
    wait_for("limited", lambda: domain.memoryParameters(0)["hard_limit"] == 1 << 20, SLOW_SECONDS)
    assert domain.memoryParameters(0)["swap_hard_limit"] == 2 << 20
    assert domain.schedulerParameters()["cpu_shares"] == 50
    verified, lines = tuned.verify()
    assert verified, lines
    tuned.off()
    assert (domain.memoryParameters(0), domain.schedulerParameters()["cpu_shares"]) == before
