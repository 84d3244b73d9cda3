# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts of all kinds are read as they are, from capabilities and from sysfs, new and old."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import hosttrees
from tests.hostfeatures import FEATURES, features
from tests.hosts import hosts
from tests.hosttrees import Sysfs
from tests.unit.seen import UNTIL_SEEN, SeenEnough, seen_enough
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.topology import Host, overlay, read


@given(host=hosts())
def test_by_capabilities(host: Host) -> None:
    """What only sysfs knows is not in them."""
    nodes = tuple(replace(node, available=None, free_pages=None) for node in host.nodes)
    cpus = {cpu: replace(detail, capacity=1024) for cpu, detail in host.cpus.items()}
    known = Host(nodes, cpus, host.caches, host.offline, arch=host.arch)
    assert Host.from_xml(hosttrees.capabilities(host)) == known


@given(host=hosts(), masks=st.booleans())
def test_by_sysfs(host: Host, masks: bool) -> None:
    fs = Sysfs(host, masks=masks)
    assert read(fs) == replace(host, arch="")
    told = Host.from_xml(hosttrees.capabilities(host))
    assert overlay(told, fs) == host


@settings(max_examples=5)
@given(host=hosts())
def test_by_files(host: Host) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Sysfs(host).write_to(Path(folder))
        assert read(KernelFS(Path(folder))) == replace(host, arch="")


@given(host=hosts())
def test_every_cpu_is_in_one_place(host: Host) -> None:
    grid = host.grid
    assert grid.where.keys() == host.cpus.keys()
    for cpu, (place, bit) in grid.where.items():
        node = grid.nodes[place]
        assert (node.cpus[bit], node.id) == (cpu, host.cpus[cpu].node)
        core = host.cpus[cpu].siblings & host.by_id[node.id].cpus
        assert set(node.numbers(node.core_of[bit])) <= core
    for node in grid.nodes:
        assert sum(cluster.mask for cluster in node.clusters) == node.everything
        banks = {one.id for one in host.nodes if one.memory}
        assert node.memory_node in (banks or {node.id})


@pytest.mark.large
def test_they_have_every_feature() -> None:
    """By themselves, so that what real machines have is tested without one of them."""
    missing = dict.fromkeys(FEATURES)

    @settings(max_examples=250, parent=UNTIL_SEEN)
    @given(st.data())
    def look(data: Any) -> None:
        for name in features(data.draw(hosts())):
            missing.pop(name, None)
        seen_enough(not missing)

    with suppress(SeenEnough):
        look()
    assert not missing
