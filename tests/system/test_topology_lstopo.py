# SPDX-License-Identifier: GPL-2.0-or-later
"""Topology against lstopo, which reads the same trees."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from tests import machines
from tuned_virt.model.topology import Host

OVERLAPPING = "fakeheterocpunuma"
"""Its nodes claim CPUs of each other: we believe the first, lstopo shows a CPU in several."""

CONTRADICTING = "40intel64-4n10c+pci-conflicts"
"""Firmware gives CPU 3 wrong siblings: lstopo drops the package and L3 that contradict others."""


def bits(text: str | None) -> frozenset[int]:
    mask = 0
    for word in (text or "").split(","):
        mask = mask << 32 | int(word or "0", 16)
    return frozenset(bit for bit in range(mask.bit_length()) if mask >> bit & 1)


def sets(root: ET.Element, kind: str) -> set[frozenset[int]]:
    return {bits(one.get("cpuset")) for one in root.iter("object") if one.get("type") == kind} - {
        frozenset()
    }


def groups(host: Host, key: Callable[[int], object]) -> set[frozenset[int]]:
    found: dict[object, set[int]] = {}
    for cpu in host.cpus:
        found.setdefault(key(cpu), set()).add(cpu)
    return set(map(frozenset, found.values()))


def check(host: Host, root: ET.Element, *, packages: bool) -> None:
    online = frozenset(host.cpus)
    truth = {
        int(one.get("os_index", "")): (bits(one.get("cpuset")), int(one.get("local_memory", "0")))
        for one in root.iter("object")
        if one.get("type") == "NUMANode"
    }
    assert online == frozenset().union(*(cpus for cpus, _ in truth.values()))
    known = {node.id: node for node in host.nodes}
    for number, (cpus, memory) in truth.items():
        if number in known:
            own = known[number].cpus & online
            assert known[number].memory == memory // 1024
            assert own in (cpus, frozenset()), "a node without CPUs is local to others' CPUs"
    assert {node.id for node in host.nodes if node.cpus & online} <= truth.keys()
    cores = {core & online for core in sets(root, "Core")} - {frozenset()}
    assert not cores or cores == {cpu.siblings for cpu in host.cpus.values()}
    caches = {cache & online for cache in sets(root, "L3Cache")} - {frozenset()}
    assert caches <= {cache.cpus for cache in host.caches}
    if packages:
        wanted = {package & online for package in sets(root, "Package")} - {frozenset()}
        assert wanted <= groups(host, lambda cpu: host.cpus[cpu].socket) or not wanted
    check_distances(host, root)


def check_distances(host: Host, root: ET.Element) -> None:
    for table in root.iter("distances2"):
        if table.get("name") == "NUMALatency":
            order = [int(n) for part in table.iter("indexes") for n in (part.text or "").split()]
            values = [int(n) for part in table.iter("u64values") for n in (part.text or "").split()]
            rows = iter(values)
            expected = {(one, other): next(rows) for one in order for other in order}
            ids = {node.id for node in host.nodes}
            for (one, other), value in expected.items():
                if {one, other} <= ids:
                    assert host.distance(one, other) == value


@pytest.mark.parametrize("name", machines.NAMES)
def test_by_sysfs(name: str) -> None:
    if name == OVERLAPPING:
        assert machines.by_sysfs(name).cpus.keys() == set(range(24)) - set(range(4, 8))
        return
    root = ET.fromstring(machines.lstopo(name, "--disallowed"))
    check(machines.by_sysfs(name), root, packages=name != CONTRADICTING)


@pytest.mark.parametrize("name", machines.NAMES)
def test_by_capabilities(name: str) -> None:
    """Sockets are not compared: the data has socket_id 0 where firmware gives no package."""
    host = machines.by_capabilities(name)
    if name == OVERLAPPING:
        assert {node.id for node in host.nodes} == {0, 1, 2, 3}
        return
    check(host, ET.fromstring(machines.lstopo(name)), packages=False)


def test_all_machines_are_there() -> None:
    machines.needed()
    assert len(machines.NAMES) == 28
