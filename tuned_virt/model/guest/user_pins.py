# SPDX-License-Identifier: GPL-2.0-or-later
"""What the owner of a guest wrote about places, read from its XML: all but what our tag names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree.ElementTree import Element

from tuned_virt.kernel import cpuset
from tuned_virt.model import xml_values
from tuned_virt.model.guest.model import UserPins


def read(root: Element, vcpus: int, tagged: Mapping[str, str]) -> UserPins:
    """`tagged` are our tag's attributes: what it names with the same value is ours."""
    vcpu = root.find("vcpu")
    everywhere = frozenset() if vcpu is None else xml_values.cpu_set(vcpu, "cpuset")
    pins = dict.fromkeys(range(vcpus), everywhere) if everywhere else {}
    ours = _pairs(tagged.get("vcpus", ""))
    for pin in root.iterfind("cputune/vcpupin"):
        number, cpus = xml_values.attribute(pin, "vcpu"), xml_values.cpu_set(pin, "cpuset")
        if number < vcpus and ours.get(number) != cpus:
            pins[number] = cpus
    emulator = root.find("cputune/emulatorpin")
    emulated = None if emulator is None else xml_values.cpu_set(emulator, "cpuset")
    mode, nodes = _numatune(root, tagged.get("numatune", ""))
    memory = root.find("numatune/memory")
    automatic = [element.get("placement") for element in (vcpu, memory) if element is not None]
    return UserPins(
        vcpus=pins,
        emulator=None if emulated == _set_of(tagged.get("emulator", "")) else emulated,
        iothreads=_iothreadpins(root, _pairs(tagged.get("iothreads", ""))),
        automatic="auto" in automatic,
        realtime=any(
            element.get("scheduler") in {"fifo", "rr"}
            for element in root.iterfind("cputune/*")
            if element.tag in {"vcpusched", "emulatorsched", "iothreadsched"}
        ),
        memory=mode,
        nodes=nodes,
        memnodes={
            xml_values.attribute(node, "cellid"): xml_values.cpu_set(node, "nodeset")
            for node in root.iterfind("numatune/memnode")
        },
    )


def _iothreadpins(
    root: Element, ours: Mapping[int, frozenset[int] | None]
) -> dict[int, frozenset[int]]:
    pins = {
        xml_values.attribute(pin, "iothread"): xml_values.cpu_set(pin, "cpuset")
        for pin in root.iterfind("cputune/iothreadpin")
    }
    return {number: cpus for number, cpus in pins.items() if ours.get(number) != cpus}


def _numatune(root: Element, ours: str) -> tuple[str, frozenset[int]]:
    """Mode (strict where none is written, as in libvirt) and nodes; nothing where they are ours."""
    element = root.find("numatune/memory")
    if element is None:
        return "", frozenset()
    mode, nodes = element.get("mode", "strict"), xml_values.cpu_set(element, "nodeset")
    our_mode, _, our_nodes = ours.partition("=")
    if (mode, nodes) == (our_mode, _set_of(our_nodes)):
        return "", frozenset()
    return mode, nodes


def _pairs(text: str) -> dict[int, frozenset[int] | None]:
    """ "0=4 1=5-6" by number; what is no such pair is left out, so that its pin is the owner's."""
    pairs = (part.partition("=") for part in text.split())
    return {int(name): _set_of(value) for name, _, value in pairs if re.fullmatch(r"\d{1,5}", name)}


def _set_of(text: str) -> frozenset[int] | None:
    try:
        return cpuset.parse(text)
    except ValueError:
        return None
