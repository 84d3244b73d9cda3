# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain's XML read into a Guest. What it does not understand it says in the guest's notes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element

from tuned_virt.kernel import cpuset
from tuned_virt.model import memory_units, xml, xml_values
from tuned_virt.model.guest import devices, hardware, machines, memory_devices, user_pins
from tuned_virt.model.guest.hardware import Hardware
from tuned_virt.model.guest.model import (
    PLACEMENT_NAMESPACE,
    POLICY_NAMESPACE,
    Cell,
    CpuTopology,
    Guest,
    GuestError,
    HugePages,
    MemoryDevice,
)
from tuned_virt.model.guest.text import printable
from tuned_virt.model.xml import ElementError

TYPES = ("kvm", "qemu", "test")
"""Hypervisors whose guests are Linux threads that can be pinned; test is libvirt's test driver."""

MANAGERS = {
    "openstack.org/xmlns/libvirt/nova": "OpenStack Nova",
    "ovirt.org/vm": "oVirt",
    "kubevirt.io": "KubeVirt",
}
"""In the XML namespace of what they leave in <metadata>."""

KNOWN = {
    "cputune": {
        *("vcpupin", "emulatorpin", "iothreadpin", "vcpusched", "emulatorsched", "iothreadsched"),
        *("shares", "period", "quota", "global_period", "global_quota"),
        *("emulator_period", "emulator_quota", "iothread_period", "iothread_quota"),
        *("cachetune", "memorytune"),
    },
    "numatune": {"memory", "memnode"},
    "memoryBacking": {
        *("hugepages", "nosharepages", "locked", "source", "access", "allocation", "discard")
    },
}
"""Children of the elements that are read; others are said in the notes."""

MOST_VCPUS = 8192
"""Above what QEMU takes (4,096); a number beyond is a mistake or an attack."""


SETS = {"cpuset", "cpus", "nodeset"}
MOST_NUMBERS = 1 << 20
"""In all sets of CPUs and nodes together: 1,024 vCPUs that may each run on 1,024 CPUs."""


def read_guest(text: str) -> Guest:
    """What `virsh dumpxml` wrote. Raises GuestError."""
    return xml.read(text, "domain", _bounded, GuestError)


def read_whole(text: str) -> tuple[Guest, Hardware]:
    """The guest, and the hardware that placement does not ask about. Raises GuestError."""
    return xml.read(text, "domain", _whole, GuestError)


def domain_type(text: str) -> str:
    """The hypervisor that a domain is for. Raises GuestError for what is no <domain>."""
    return xml.read(text, "domain", lambda root: root.get("type", ""), GuestError)


def _whole(root: Element) -> tuple[Guest, Hardware]:
    guest = _bounded(root)
    return guest, hardware.read(root, guest.vcpus)


def _bounded(root: Element) -> Guest:
    numbers = 0
    for element in root.iter():
        numbers += sum(cpuset.size(element.attrib[name]) for name in SETS & element.attrib.keys())
        numbers += cpuset.size(element.text or "") if element.tag == "nodemask" else 0
        if numbers > MOST_NUMBERS:
            raise ElementError(element, f"up to here its sets have over {MOST_NUMBERS} numbers")
    return _guest(root)


def _guest(root: Element) -> Guest:
    kind = root.get("type", "")
    if kind not in TYPES:
        raise ElementError(
            root, f"type '{kind[:40]}' is not a KVM guest (one of {', '.join(TYPES)})"
        )
    os_type = root.find("os/type")
    arch, machine = (
        ("", "") if os_type is None else (os_type.get("arch", ""), os_type.get("machine", ""))
    )
    vcpus, online = _vcpus(root)
    added = memory_devices.read(root)
    memory = _memory(root, added)
    tagged = _attributes(root, f"{{{PLACEMENT_NAMESPACE}}}placement")
    guest = Guest(
        name=root.findtext("name", "").strip(),
        uuid=_uuid(root),
        type=kind,
        arch=arch,
        machine=machine,
        vcpus=vcpus,
        online=online,
        topology=_topology(root),
        cells=_cells(root, vcpus, added),
        memory=memory,
        max_memory=max(memory, _kib(root, "maxMemory")),
        ballooned=_ballooned(root, memory - sum(device.memory for device in added)),
        huge_pages=_huge_pages(root),
        memory_devices=added,
        devices=tuple(sorted(set(devices.passed_through(root)))),
        iothreads=devices.iothreads(root),
        owned=user_pins.read(root, vcpus, tagged),
        manager=_manager(root),
        wishes=_attributes(root, f"{{{POLICY_NAMESPACE}}}policy"),
        tagged=tagged,
        locked=root.find("memoryBacking/locked") is not None,
        protected=root.find("launchSecurity") is not None,
        device_held=devices.hold_memory(root),
        shares_pages=root.find("memoryBacking/nosharepages") is None,
        partition=root.findtext("resource/partition", "").strip() or "/machine",
        notes=(*_notes(root), *machines.notes(arch, machine, vcpus)),
    )
    if not guest.name:
        raise ElementError(root, "it has no <name>")
    return guest


def _uuid(root: Element) -> str:
    element = root.find("uuid")
    if element is None:
        return ""
    text = (element.text or "").strip().lower()
    if not re.fullmatch(r"[0-9a-f]{8}(-?[0-9a-f]{4}){4}[0-9a-f]{8}", text):
        raise ElementError(element, f"<uuid>: '{printable(text[:40])}' is none")
    plain = text.replace("-", "")
    return "-".join((plain[:8], plain[8:12], plain[12:16], plain[16:20], plain[20:]))


# --- vCPUs and memory -----------------------------------------------------------------------------


def _vcpus(root: Element) -> tuple[int, tuple[int, ...]]:
    """The most it can have, and those it has now."""
    element = root.find("vcpu")
    if element is None:
        return 1, (0,)
    most = xml_values.number(element)
    if not 1 <= most <= MOST_VCPUS:
        raise ElementError(element, f"<vcpu>: {most} is not from 1 to {MOST_VCPUS}")
    current = xml_values.attribute(element, "current", most)
    if not 1 <= current <= most:
        raise ElementError(element, f"<vcpu current>: {current} is not from 1 to {most}")
    listed = root.findall("vcpus/vcpu")
    if listed:
        on = {xml_values.attribute(one, "id") for one in listed if one.get("enabled") == "yes"}
        return most, tuple(sorted(number for number in on if number < most)) or (0,)
    return most, tuple(range(current))


def _topology(root: Element) -> CpuTopology | None:
    element = root.find("cpu/topology")
    if element is None:
        return None
    parts = {
        name: xml_values.attribute(element, name, 1)
        for name in ("sockets", "dies", "clusters", "cores", "threads")
    }
    if 0 in parts.values():
        raise ElementError(element, "<topology>: a 0 among its numbers")
    return CpuTopology(**parts)


def _cells(root: Element, vcpus: int, added: Sequence[MemoryDevice]) -> tuple[Cell, ...]:
    cells = []
    taken: set[int] = set()
    for place, element in enumerate(root.iterfind("cpu/numa/cell")):
        number = xml_values.attribute(element, "id", place)
        cpus = xml_values.cpu_set(element, "cpus")
        if cpus & taken:
            raise ElementError(element, f"<cell>: vCPU {min(cpus & taken)} is in two cells")
        if max(cpus, default=0) >= vcpus:
            raise ElementError(element, f"<cell cpus>: the guest has no vCPU {max(cpus)}")
        taken |= cpus
        memory = memory_units.kib(element, element.get("memory", ""), element.get("unit", "KiB"))
        plugged = sum(device.memory for device in added if device.cell == number)
        cells.append(Cell(number, cpus, memory + plugged))
    if len({cell.id for cell in cells}) < len(cells):
        raise ElementError(root, "<numa>: two cells have the same id")
    return tuple(sorted(cells, key=lambda cell: cell.id))


def _memory(root: Element, added: Sequence[MemoryDevice]) -> int:
    """<memory> counts devices in full as libvirt writes it; what only cells and devices say counts
    too."""
    cells = sum(
        memory_units.kib(element, element.get("memory", ""), element.get("unit", "KiB"))
        for element in root.iterfind("cpu/numa/cell")
    )
    unused = sum(device.size - device.memory for device in added)
    plugged = sum(device.memory for device in added)
    memory = max(_kib(root, "memory") - unused, cells + plugged)
    if memory == 0:
        memory = _kib(root, "currentMemory")
    if memory == 0:
        element = root.find("memory")
        raise ElementError(root if element is None else element, "it has no <memory>")
    return memory


def _ballooned(root: Element, memory: int) -> int:
    """KiB that a balloon keeps of so many without memory devices. <currentMemory> of a guest that
    runs counts what it has of those, so that this may be less than there is."""
    current = _kib(root, "currentMemory")
    return max(0, memory - current) if current else 0


def _kib(root: Element, path: str) -> int:
    element = root.find(path)
    return 0 if element is None else memory_units.element_kib(element)


def _huge_pages(root: Element) -> tuple[HugePages, ...]:
    element = root.find("memoryBacking/hugepages")
    if element is None:
        return ()
    pages = []
    for page in element.iterfind("page"):
        size = memory_units.kib(page, page.get("size", ""), page.get("unit", "KiB"))
        if size == 0:
            raise ElementError(page, "<page size>: 0")
        pages.append(
            HugePages(
                size, xml_values.cpu_set(page, "nodeset") if "nodeset" in page.attrib else None
            )
        )
    return tuple(pages) or (HugePages(None),)


# --- the rest ------------------------------------------------------------------------------------


def _manager(root: Element) -> str:
    for element in root.iterfind("metadata/*"):
        for namespace, name in MANAGERS.items():
            if namespace in element.tag:
                return name
    return ""


def _attributes(root: Element, tag: str) -> dict[str, str]:
    element = root.find(f"metadata/{tag}")
    return {} if element is None else dict(element.attrib)


def _notes(root: Element) -> Iterator[str]:
    for path, known in KNOWN.items():
        unknown = {child.tag for child in root.iterfind(f"{path}/*")} - known
        for name in sorted(unknown):
            yield f"<{path}><{printable(name[:40])}> is not supported"
    if any(child.tag.endswith("}commandline") for child in root):
        yield "of arguments passed to QEMU (qemu:commandline) only devices of the host are read"
    if root.find("cputune/cachetune") is not None:
        yield "cachetune keeps parts of a cache for it, which is not counted"
    if root.find("uuid") is None:
        yield "it has no <uuid>: it is known by its name"
