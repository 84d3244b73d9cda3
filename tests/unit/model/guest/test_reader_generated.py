# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests of all kinds are read as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.domains import domain
from tests.guests import crowds, guests
from tests.hosts import hosts
from tests.unit.model.guest.test_reader_published import TWO_NODES
from tests.unit.seen import UNTIL_SEEN, SeenEnough, seen_enough
from tuned_virt.model.guest import Guest, MemoryDevice, read_guest
from tuned_virt.model.xml import MOST_CHARACTERS

FEATURES: Mapping[str, Callable[[Guest], bool]] = {
    "several vCPUs": lambda guest: guest.vcpus > 1,
    "vCPUs that are not plugged in": lambda guest: len(guest.online) < guest.vcpus,
    "threads": lambda guest: guest.threads > 1,
    "no topology": lambda guest: guest.topology is None,
    "vNUMA cells": lambda guest: len(guest.cells) > 1,
    "room for more memory": lambda guest: guest.max_memory > guest.memory,
    "huge pages": lambda guest: bool(guest.huge_pages),
    "huge pages of a size": lambda guest: any(page.size for page in guest.huge_pages),
    "devices": lambda guest: bool(guest.devices),
    "IOThreads": lambda guest: bool(guest.iothreads),
    "IOThreads of disks": lambda guest: any(guest.iothreads.values()),
    "pinned vCPUs": lambda guest: any(len(cpus) == 1 for cpus in guest.owned.vcpus.values()),
    "vCPUs pinned to several": lambda guest: any(len(c) > 1 for c in guest.owned.vcpus.values()),
    "some vCPUs pinned": lambda guest: 0 < len(guest.owned.vcpus) < guest.vcpus,
    "a pinned emulator": lambda guest: guest.owned.emulator is not None,
    "pinned IOThreads": lambda guest: bool(guest.owned.iothreads),
    "numad": lambda guest: guest.owned.automatic,
    "real time": lambda guest: guest.owned.realtime,
    "numatune": lambda guest: bool(guest.owned.memory),
    "a manager": lambda guest: bool(guest.manager),
    "wishes": lambda guest: bool(guest.wishes),
    "locked": lambda guest: guest.locked,
    "protected": lambda guest: guest.protected,
    "nosharepages": lambda guest: not guest.shares_pages,
    "memory in use": lambda guest: bool(guest.resident),
}


def plugged(guest: Guest) -> dict[int, int]:
    """A DIMM with half a cell's memory in every other cell."""
    return {cell.id: cell.memory // 2 for cell in guest.cells[::2]}


@settings(suppress_health_check=[*HealthCheck])
@given(st.data())
def test_by_xml(data: Any) -> None:
    """What only the process shows, its memory in use, is not in it."""
    guest = data.draw(guests(data.draw(hosts()), 1))
    text = domain(guest, plugged(guest))
    assert len(text) < MOST_CHARACTERS
    dimms = tuple(MemoryDevice(cell, kib, kib) for cell, kib in plugged(guest).items())
    expected = replace(guest, resident={}, memory_devices=dimms)
    assert replace(read_guest(text), notes=()) == expected


WITH_DEVICES = replace(TWO_NODES, devices={"0000:3b:00.0": 1}, disks={"nvme0n1": 1})


@pytest.mark.large
def test_they_have_every_feature() -> None:
    missing = dict.fromkeys(FEATURES)

    @settings(max_examples=250, parent=UNTIL_SEEN)
    @given(crowds(WITH_DEVICES))
    def look(crowd: list[Guest]) -> None:
        for name in [name for name in missing if any(map(FEATURES[name], crowd))]:
            missing.pop(name)
        seen_enough(not missing)

    with suppress(SeenEnough):
        look()
    assert not missing


@settings(suppress_health_check=[*HealthCheck])
@given(guest=guests(TWO_NODES, 1))
def test_its_xml_says_what_is_not_understood(guest: Guest) -> None:
    """And of what these have nothing is not."""
    assert read_guest(domain(guest, {})).notes == ()
    odd = domain(guest, {}).replace("<cputune", "<cputune><bandwidth/></cputune><cputune", 1)
    assert read_guest(odd).notes == ("<cputune><bandwidth> is not supported",)
