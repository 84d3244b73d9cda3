# SPDX-License-Identifier: GPL-2.0-or-later
"""What the owner of a guest wrote about its places, element by element."""

from __future__ import annotations

import pytest

from tests.unit.model.guest.xml import guest, refused
from tuned_virt.model.guest import (
    UserPins,
)

TAG = "<metadata><placement xmlns='urn:tuned-virt-plus:placement:1' {}/></metadata>"


def owned(inside: str, tag: str = "", vcpu: str = "<vcpu>4</vcpu>") -> UserPins:
    return guest(vcpu=vcpu, more=inside + (TAG.format(tag) if tag else "")).owned


def cpus(*numbers: int) -> frozenset[int]:
    return frozenset(numbers)


def tune(inside: str) -> str:
    return f"<cputune>{inside}</cputune>"


def test_an_owner_who_says_nothing() -> None:
    assert owned("") == UserPins()


def test_an_emulator_pin_without_cpus_is_none() -> None:
    assert owned(tune("<emulatorpin/>")) == UserPins()


def test_pinned_vcpus() -> None:
    pins = tune("<vcpupin vcpu='1' cpuset='4-6,^5'/><vcpupin vcpu='4' cpuset='1'/>")
    assert owned(pins).vcpus == {1: cpus(4, 6)}
    all_on = "<vcpu cpuset='0-1'>3</vcpu>"
    assert owned("", vcpu=all_on).vcpus == dict.fromkeys(range(3), cpus(0, 1))
    assert owned(pins, vcpu=all_on).vcpus == {0: cpus(0, 1), 1: cpus(4, 6), 2: cpus(0, 1)}


def test_pins_that_are_tagged_are_not_the_owners() -> None:
    pins = tune("<vcpupin vcpu='0' cpuset='4'/><vcpupin vcpu='1' cpuset='5'/>")
    assert owned(pins, "vcpus='0=4 1=5'").vcpus == {}
    assert owned(pins, "vcpus='0=4 1=6'").vcpus == {1: cpus(5)}
    assert owned(pins, "vcpus='x=4 =5 1'").vcpus == {0: cpus(4), 1: cpus(5)}
    assert owned(pins, "vcpus='0=4,x 123456=5'").vcpus == {0: cpus(4), 1: cpus(5)}


def test_emulator_and_iothreads() -> None:
    pins = tune("<emulatorpin cpuset='1'/><iothreadpin iothread='1' cpuset='2'/>"
                "<iothreadpin iothread='2' cpuset='3'/>")  # fmt: skip
    assert owned(pins).emulator == cpus(1)
    assert owned(pins).iothreads == {1: cpus(2), 2: cpus(3)}
    assert owned(pins, "emulator='1' iothreads='1=2 2=4'").emulator is None
    assert owned(pins, "emulator='1' iothreads='1=2 2=4'").iothreads == {2: cpus(3)}
    assert owned(pins, "emulator='2'").emulator == cpus(1)
    assert owned(pins, "vcpus='0=1'").emulator == cpus(1)


def numa(inside: str) -> str:
    return f"<numatune>{inside}</numatune>"


def test_memory_nodes() -> None:
    strict = owned(numa("<memory nodeset='0-1'/>"))
    assert (strict.memory, strict.nodes) == ("strict", cpus(0, 1))
    mode = owned(numa("<memory mode='restrictive' nodeset='1'/>"))
    assert (mode.memory, mode.nodes) == ("restrictive", cpus(1))
    tagged = numa("<memory mode='restrictive' nodeset='1'/>")
    for tag, ours in (
        ("numatune='restrictive=1'", True),
        ("numatune='strict=1'", False),
        ("numatune='restrictive=0'", False),
        ("numatune='restrictive'", False),
    ):
        found = owned(tagged, tag)
        assert (found.memory, found.nodes) == (("", cpus()) if ours else ("restrictive", cpus(1)))
    cells = "<memnode cellid='0' mode='strict' nodeset='1'/><memnode cellid='2' nodeset='0,3'/>"
    assert owned(numa(cells)).memnodes == {0: cpus(1), 2: cpus(0, 3)}


@pytest.mark.parametrize(
    ("inside", "vcpu", "automatic"),
    [
        ("", "<vcpu placement='auto'>4</vcpu>", True),
        ("", "<vcpu placement='static'>4</vcpu>", False),
        (numa("<memory mode='strict' placement='auto'/>"), "<vcpu>4</vcpu>", True),
        (numa("<memory mode='strict' placement='static' nodeset='0'/>"), "", False),
    ],
)
def test_numad_chooses(inside: str, vcpu: str, automatic: bool) -> None:
    assert owned(inside, vcpu=vcpu).automatic is automatic


@pytest.mark.parametrize(
    ("element", "realtime"),
    [
        ("<vcpusched vcpus='0' scheduler='fifo' priority='1'/>", True),
        ("<emulatorsched scheduler='rr' priority='1'/>", True),
        ("<iothreadsched iothreads='1' scheduler='fifo' priority='1'/>", True),
        ("<vcpusched vcpus='0' scheduler='batch'/>", False),
        ("<vcpupin vcpu='0' cpuset='0' scheduler='fifo'/>", False),
    ],
)
def test_real_time(element: str, realtime: bool) -> None:
    assert owned(tune(element)).realtime is realtime


@pytest.mark.parametrize(
    ("inside", "why"),
    [
        (tune("<vcpupin cpuset='0'/>"), "<vcpupin vcpu>: '' is not a whole number from 0"),
        (
            tune("<vcpupin vcpu='0' cpuset='x'/>"),
            "<vcpupin cpuset>: 'x' is not a number or a range",
        ),
        (tune("<emulatorpin cpuset='x'/>"), "<emulatorpin cpuset>: 'x' is not a number or a range"),
        (tune("<iothreadpin cpuset='1'/>"), "<iothreadpin iothread>: '' is not a whole number"),
        (tune("<iothreadpin iothread='1' cpuset='x'/>"), "<iothreadpin cpuset>: 'x' is no"),
        (numa("<memory nodeset='x'/>"), "<memory nodeset>: 'x' is not a number or a range"),
        (numa("<memnode nodeset='0'/>"), "<memnode cellid>: '' is not a whole number from 0"),
        (numa("<memnode cellid='0' nodeset='x'/>"), "<memnode nodeset>: 'x' is not a number"),
    ],
)
def test_places_that_are_not_read(inside: str, why: str) -> None:
    assert refused(more=inside).startswith(f"line 3: {why}")


@pytest.mark.parametrize(
    ("metadata", "manager"),
    [
        ("<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'/>",
         "OpenStack Nova"),
        ("<o:vm xmlns:o='http://ovirt.org/vm/1.0'/>", "oVirt"),
        ("<k:kubevirt xmlns:k='http://kubevirt.io'/>", "KubeVirt"),
        ("<a/><o:vm xmlns:o='http://ovirt.org/vm/1.0'/>", "oVirt"),
        ("<libosinfo xmlns='http://libosinfo.org/x'/>", ""),
    ],
)  # fmt: skip
def test_who_else_places_guests(metadata: str, manager: str) -> None:
    assert guest(more=f"<metadata>{metadata}</metadata>").manager == manager


def test_metadata_of_ours() -> None:
    wish = "<policy xmlns='urn:tuned-virt-plus:policy:1' policy='dedicated' smt='isolate'/>"
    found = guest(more=f"<metadata>{wish}</metadata>")
    assert found.wishes == {"policy": "dedicated", "smt": "isolate"}
    assert found.tagged == {}
    tagged = guest(more=TAG.format("vcpus='0=1'"))
    assert (tagged.tagged, tagged.wishes) == ({"vcpus": "0=1"}, {})
