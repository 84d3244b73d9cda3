"""vm_pinning on four nodes of two last-level caches each: real guests, threads and pages."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.sandbox import wait_for
from tests.vm.daemon import CONFIGURATION, Tuned
from tests.vm.libvirtd import SLOW_SECONDS, Libvirtd, affinities, pid_of, ram_by_node

MIB = 64
SHAPES = {"a": 1, "b": 2, "c": 1, "d": 2, "e": 1, "f": 1, "g": 2, "h": 1}
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


def test_guests_are_placed_as_they_start_and_put_back(tuned: Tuned, guests: Libvirtd) -> None:
    for name, vcpus in SHAPES.items():  # without us, for comparison
        guests.start_guest(f"before-{name}", vcpus, MIB, flags=PAUSED)
    without = {name: ram_by_node(f"before-{name}", MIB) for name in SHAPES}
    assert all(set(affinities(f"before-{name}").values()) == {"0-7"} for name in SHAPES)
    for name in SHAPES:
        guests.stop_guest(f"before-{name}")
    print("without us, pages by node:", without)

    tuned.switch(profile(PROFILE))
    for name, vcpus in SHAPES.items():
        guests.start_guest(name, vcpus, MIB, flags=PAUSED)
    names = list(SHAPES)
    wait_for("all pinned", pinned(names), SLOW_SECONDS)
    wait_for("memory follows", followed(names), SLOW_SECONDS)
    print("nodes:", {name: node_of(name) for name in names})
    assert {node_of(name) for name in names} == {0, 1, 2, 3}
    verified, lines = tuned.verify()
    assert verified, lines
    assert lines.count("verify: passed: device") == len(names), lines

    places = {name: node_of(name) for name in names}
    guests.stop_guest("a")
    guests.stop_guest("b")
    guests.start_guest("big", 2, 2 * MIB, flags=PAUSED)
    wait_for("big pinned", pinned(["big"]), SLOW_SECONDS)
    rest = names[2:]
    assert {name: node_of(name) for name in rest} == {name: places[name] for name in rest}

    tuned.off()
    for name in [*rest, "big"]:
        assert set(affinities(name).values()) == {"0-7"}, affinities(name)
    assert not Path("/run/tuned-virt/baseline.json").exists()
    print(subprocess.run(["tuned-virt", "log"], capture_output=True, text=True, check=True).stdout)
    assert pid_of("big")
