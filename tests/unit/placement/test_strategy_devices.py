# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests without PCI devices leave their node to those that have some, where that costs nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.machines import guest, machine, planned
from tuned_virt.placement import PlacementPolicy, plan

DEVICE = "0000:3b:00.0"
HOST = replace(machine(2, cores=8, threads=2, llcs=1, gib=64), devices={DEVICE: 0})


@pytest.mark.parametrize("mode", ["node", "dedicated"])
def test_the_node_with_the_device_is_kept_for_who_has_it(mode: str) -> None:
    """Nova's "PCI avoided" (test_hardware.py, pci_requests): the other node first."""
    made = planned(HOST, guest("plain", 4), policy=mode)["plain"]
    assert (made.nodes, made.why) == (
        (1,),
        "node 1 rather than node 0: 0 PCI devices there, compared with 1: nodes with devices are"
        " left to guests that have some",
    )
    later = planned(
        HOST, guest("plain", 4), guest("gpu", 8, devices=(DEVICE,)), current=[made], policy=mode
    )
    assert (later["plain"].nodes, later["gpu"].nodes) == ((1,), (0,))
    alone = planned(HOST, guest("gpu", 4, devices=(DEVICE,)), policy=mode)["gpu"]
    assert alone.nodes == (0,)


def test_one_vcpu_prefers_isolated_cpus() -> None:
    host = replace(HOST, isolated=frozenset(range(16, 32)), devices={})
    assert planned(host, guest("a", 1), policy="dedicated")["a"].nodes == (1,)


def test_it_costs_nothing() -> None:
    level = planned(HOST, guest("a", 4), guest("b", 4))
    assert {one.nodes for one in level.values()} == {(0,), (1,)}, "floating guests stay level"
    there = guest("a", 4, resident={0: 1 << 20})
    assert planned(HOST, there)["a"].nodes == (0,), "no memory is moved for it"


def test_a_device_whose_node_is_not_known_is_said() -> None:
    """With capabilities from a file, and of firmware that says none."""
    host = replace(machine(), devices={DEVICE: 1})
    wants = guest("a", 1, devices=(DEVICE, "0000:af:00.0"))
    said = plan(host, [wants], PlacementPolicy(), {}).warnings
    assert said == (
        "guest a: the NUMA node of its devices is not known, so it does not count: 0000:af:00.0",
    )
    assert plan(replace(machine(1), devices={}), [wants], PlacementPolicy(), {}).warnings == ()
