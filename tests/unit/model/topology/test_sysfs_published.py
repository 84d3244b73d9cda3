# SPDX-License-Identifier: GPL-2.0-or-later
"""Topology of the captured machines against lstopo, which reads the same trees."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.published import machines
from tests.published.capabilities import MEMORY_SIDE, bits
from tests.published.sources import LIBVIRT
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.topology import Host, HostError, read

OVERLAPPING = "fakeheterocpunuma"
"""Its nodes claim CPUs of each other: we believe the first, lstopo shows a CPU in several."""

WRONG_PACKAGES = {"40intel64-4n10c+pci-conflicts", "16ia64-8n2s"}
"""Firmware gives CPU 3 wrong siblings, and lstopo drops the package and L3 that contradict others;
firmware numbers the two packages of a node alike."""

WRONG_CACHES = {"64fake-4n2s2ca2c2t"}
"""A made-up machine: the lists of who shares a cache contradict the masks, which lstopo reads."""


def sets(root: ET.Element, kind: str) -> set[frozenset[int]]:
    found = (one for one in root.iter("object") if one.get("type") == kind)
    return {bits(one.get("cpuset")) for one in found if one.get("subtype") != MEMORY_SIDE} - {
        frozenset()
    }


def groups(host: Host, key: Callable[[int], object]) -> set[frozenset[int]]:
    found: dict[object, set[int]] = {}
    for cpu in host.cpus:
        found.setdefault(key(cpu), set()).add(cpu)
    return set(map(frozenset, found.values()))


def check(host: Host, root: ET.Element, *, packages: bool, caches: bool = True) -> None:
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
    if caches:
        found = {cache & online for cache in sets(root, "L3Cache")} - {frozenset()}
        assert found <= {cache.cpus for cache in host.caches}
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


@pytest.mark.large
@machines.each(machines.names())
def test_each_is_read_or_refused(name: str) -> None:
    """Refused is one that is no machine, only its cgroups, which lstopo cannot read either."""
    try:
        host = machines.by_sysfs(name)
    except HostError as error:
        assert "has no CPU" in error.reason
        assert not machines.lstopo(name)
        return
    assert host.cpus
    of_nodes = [cpu for node in host.nodes for cpu in node.cpus]
    assert len(set(of_nodes)) == len(of_nodes)
    assert host.grid.where.keys() == host.cpus.keys() == set(of_nodes) - host.offline


@machines.each(machines.told())
def test_by_sysfs(name: str) -> None:
    if name == OVERLAPPING:
        assert machines.by_sysfs(name).cpus.keys() == set(range(24)) - set(range(4, 8))
        return
    root = ET.fromstring(machines.lstopo(name))
    host = machines.by_sysfs(name)
    check(host, root, packages=name not in WRONG_PACKAGES, caches=name not in WRONG_CACHES)


@machines.each(machines.told())
def test_by_capabilities(name: str) -> None:
    """Sockets are not compared: the data has socket_id 0 where firmware gives no package."""
    host = machines.by_capabilities(name)
    check(host, ET.fromstring(machines.lstopo(name)), packages=False)


@machines.each(["all"] if machines.told() else [])
def test_all_machines_are_there(name: str) -> None:
    """Fewer than in the oldest release that is asked for: then a pattern misses some."""
    assert len(machines.names()) >= 50
    assert len(machines.told()) >= 49


def test_by_libvirt_itself(tmp_path: Path) -> None:
    """Capabilities that libvirt made of trees that are published with them.

    Its test takes memory from elsewhere, and for some the distances too.
    """
    if LIBVIRT.missing:
        pytest.skip(LIBVIRT.missing)
    files = LIBVIRT.files("tests/vircaps2xmldata/vircaps-*.xml")
    for file in files:
        told = Host.from_xml(file.read_text())
        root = tmp_path / file.stem
        (root / "sys/devices").mkdir(parents=True)
        tree = file.parent / f"linux-{file.stem.split('-', 2)[2]}" / "system"
        (root / "sys/devices/system").symlink_to(tree)
        seen = read(KernelFS(root))
        assert (told.cpus, told.offline) == (seen.cpus, seen.offline), file
        assert [(one.id, one.cpus) for one in told.nodes] == [
            (one.id, one.cpus) for one in seen.nodes
        ]
        assert {cache.cpus for cache in told.caches} == {cache.cpus for cache in seen.caches}, file
    assert len(files) >= 11
