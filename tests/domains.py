# SPDX-License-Identifier: GPL-2.0-or-later
"""A Guest as libvirt's XML would have it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping

from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import POLICY_NAMESPACE, Guest, UserPins

MANAGERS = {
    "OpenStack Nova": "http://openstack.org/xmlns/libvirt/nova/1.1",
    "oVirt": "http://ovirt.org/vm/1.0",
    "KubeVirt": "http://kubevirt.io",
}


def domain(guest: Guest, plugged: Mapping[int, int]) -> str:
    """The <domain>; of the memory of vNUMA cells so much, in KiB, is in DIMMs."""
    root = ET.Element("domain", type=guest.type)
    _put(root, "name", guest.name)
    _put(root, "uuid", guest.uuid)
    metadata = _put(root, "metadata")
    if guest.wishes:
        _put(metadata, f"{{{POLICY_NAMESPACE}}}policy", **guest.wishes)
    if guest.manager:
        _put(metadata, f"{{{MANAGERS[guest.manager]}}}instance")
    _put(root, "maxMemory", guest.max_memory, unit="KiB", slots="16")
    _put(root, "memory", guest.memory, unit="KiB")
    _put(root, "vcpu", guest.vcpus, current=str(len(guest.online)))
    _cpu(root, guest, plugged)
    _backing(root, guest)
    _threads(root, guest)
    _owned(root, guest.owned)
    _devices(root, guest, plugged)
    return ET.tostring(root, encoding="unicode")


def _put(parent: ET.Element, tag: str, text: object = "", **attributes: str) -> ET.Element:
    made = ET.SubElement(parent, tag, attributes)
    made.text = str(text)
    return made


def _cpu(root: ET.Element, guest: Guest, plugged: Mapping[int, int]) -> None:
    cpu = _put(root, "cpu")
    if guest.topology:
        parts = {name: str(value) for name, value in vars(guest.topology).items()}
        _put(cpu, "topology", **parts)
    numa = _put(cpu, "numa")
    for cell in guest.cells:
        memory = str(cell.memory - plugged.get(cell.id, 0))
        cpus = cpuset.text(cell.vcpus)
        _put(numa, "cell", id=str(cell.id), cpus=cpus, memory=memory, unit="KiB")


def _backing(root: ET.Element, guest: Guest) -> None:
    backing = _put(root, "memoryBacking")
    if guest.huge_pages:
        pages = _put(backing, "hugepages")
        for page in guest.huge_pages:
            if page.size is not None:
                _put(pages, "page", size=str(page.size), unit="KiB")
    if guest.locked:
        _put(backing, "locked")
    if not guest.shares_pages:
        _put(backing, "nosharepages")
    if guest.protected:
        _put(root, "launchSecurity", type="sev")


def _threads(root: ET.Element, guest: Guest) -> None:
    _put(root, "iothreads", len(guest.iothreads))
    ids = _put(root, "iothreadids")
    for number in guest.iothreads:
        _put(ids, "iothread", id=str(number))


def _owned(root: ET.Element, owned: UserPins) -> None:
    tune = _put(root, "cputune")
    for number, cpus in owned.vcpus.items():
        _put(tune, "vcpupin", vcpu=str(number), cpuset=cpuset.text(cpus))
    if owned.emulator is not None:
        _put(tune, "emulatorpin", cpuset=cpuset.text(owned.emulator))
    for number, cpus in owned.iothreads.items():
        _put(tune, "iothreadpin", iothread=str(number), cpuset=cpuset.text(cpus))
    if owned.realtime:
        _put(tune, "vcpusched", vcpus="0", scheduler="fifo", priority="1")
    if owned.automatic:
        for vcpu in root.iterfind("vcpu"):
            vcpu.set("placement", "auto")
    if owned.memory:
        numa = _put(root, "numatune")
        _put(numa, "memory", mode=owned.memory, nodeset=cpuset.text(owned.nodes))


def _devices(root: ET.Element, guest: Guest, plugged: Mapping[int, int]) -> None:
    devices = _put(root, "devices")
    for number, disks in guest.iothreads.items():
        for disk in disks:
            made = _put(devices, "disk", type="block")
            _put(made, "driver", iothread=str(number))
            _put(made, "source", dev=f"/dev/{disk}")
    for address in guest.devices:
        made = _put(devices, "hostdev", type="pci")
        numbers = zip(("domain", "bus", "slot", "function"), re.split("[:.]", address))
        _put(_put(made, "source"), "address", **{name: f"0x{text}" for name, text in numbers})
    for cell, kib in plugged.items():
        target = _put(_put(devices, "memory", model="dimm"), "target")
        _put(target, "size", kib, unit="KiB")
        _put(target, "node", cell)
