# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt asks our numad on four nodes: guests' memory is local from its first page on."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.sandbox import wait_for
from tests.vm import machine, program
from tests.vm.daemon import Tuned, own_profile
from tests.vm.libvirtd import SLOW_SECONDS, Libvirtd, affinities, pid_of

NAMES = [f"n{number}" for number in range(8)]
MIB = 64
LOCAL = 0.95
NODE_CPUS = ("0-1", "2-3", "4-5", "6-7")
RECORD = Path("/run/tuned-virt/numad.json")


@pytest.fixture(scope="module")
def daemon_of_guests(product: None) -> Iterator[Libvirtd]:
    machine.put_numad(machine.OUR_NUMAD)
    made = Libvirtd(Path(os.environ["TUNED_VIRT_QEMU"]), interleaved=False)
    yield made
    made.stop()
    machine.put_numad(None)


@pytest.fixture
def libvirtd(daemon_of_guests: Libvirtd) -> Iterator[Libvirtd]:
    """It has no guests, and nobody was advised."""
    yield daemon_of_guests
    for domain in daemon_of_guests.connection.listAllDomains():
        domain.destroy()
    RECORD.unlink(missing_ok=True)


def start(
    libvirtd: Libvirtd, name: str, rom: Path, placement: str = "auto", numatune: str = ""
) -> int:
    """Start a guest where numad advises, and return the node."""
    text = program.GUEST.format(
        name=name, mib=MIB, placement=placement, numatune=numatune, vcpus=1, rom=rom
    )
    libvirtd.connection.createXML(text)
    [node] = json.loads(RECORD.read_text())["advised"][-1]["nodes"]
    return int(node)


def local(name: str, node: int) -> float:
    """Part of what a guest has touched that is on a node."""
    pages = program.memory(pid_of(name))
    return pages.get(node, 0) / sum(pages.values())


def vcpu_cpus(name: str) -> set[str]:
    return {cpus for thread, cpus in affinities(name).items() if thread.startswith("CPU ")}


def assert_placed(advised: dict[str, int]) -> None:
    """Each guest runs on the node that it was advised, and has its memory there."""
    shares = {name: local(name, node) for name, node in advised.items()}
    print("advised:", advised, "local:", shares)
    assert min(shares.values()) >= LOCAL
    for name, node in advised.items():
        assert vcpu_cpus(name) == {NODE_CPUS[node]}, name


def test_eight_guests_have_local_memory_from_the_start_and_keep_their_place(
    tuned: Tuned, libvirtd: Libvirtd, tmp_path: Path
) -> None:
    rom = program.write(tmp_path, MIB, "halts")
    advised = {name: start(libvirtd, name, rom) for name in NAMES}
    for name in NAMES:
        wait_for(f"{name} touches", partial(program.touched, pid_of(name), MIB), SLOW_SECONDS)
    assert_placed(advised)
    assert set(Counter(advised.values()).values()) == {2}, "as many vCPUs as CPUs on each node"

    tuned.switch(own_profile("nodes", "vm_pinning", policy="node"))
    verified, lines = tuned.verify()
    assert verified, lines
    libvirtd.stop_guest(NAMES[0])
    advised[NAMES[0]] = start(libvirtd, NAMES[0], rom)
    wait_for("it touches", partial(program.touched, pid_of(NAMES[0]), MIB), SLOW_SECONDS)
    assert_placed(advised)
    tuned.off()
    assert_placed(advised)


MEMORY = "<numatune><memory mode='{}' placement='auto'/></numatune>"


@pytest.mark.parametrize(
    ("placement", "mode"),
    [("auto", "interleave"), ("auto", "restrictive"), ("static", "preferred")],
)
def test_memory_is_local_in_each_way_to_ask(
    libvirtd: Libvirtd, tmp_path: Path, placement: str, mode: str
) -> None:
    rom = program.write(tmp_path, MIB, "halts")
    node = start(libvirtd, "asks", rom, placement, MEMORY.format(mode))
    wait_for("it touches", partial(program.touched, pid_of("asks"), MIB), SLOW_SECONDS)
    assert local("asks", node) >= LOCAL
    assert vcpu_cpus("asks") == {NODE_CPUS[node]}, "libvirt has vCPUs follow, also static ones"
