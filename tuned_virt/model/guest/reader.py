# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain's XML read into a Guest. What it does not understand it says in the guest's notes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from xml.etree.ElementTree import Element

from tuned_virt.kernel import cpuset
from tuned_virt.model import memory_units, xml
from tuned_virt.model.guest import machines
from tuned_virt.model.guest.model import (
    PLACEMENT_NAMESPACE,
    POLICY_NAMESPACE,
    Cell,
    CpuTopology,
    Guest,
    GuestError,
    HugePages,
    UserPins,
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
        *("hugepages", "nosharepages", "locked", "source", "access", "allocation", "discard"),
    },
}
"""Children of the elements that are read; others are said in the notes."""

MOST_VCPUS = 8192
MOST_IOTHREADS = 1024
"""Above what QEMU takes (4,096 vCPUs); a number beyond is a mistake or an attack."""


SETS = {"cpuset", "cpus", "nodeset"}
MOST_NUMBERS = 1 << 20
"""In all sets of CPUs and nodes together: 1,024 vCPUs that may each run on 1,024 CPUs."""


def read(text: str) -> Guest:
    """Raises GuestError."""
    return xml.read(text, "domain", _bounded, GuestError)


def _bounded(root: Element) -> Guest:
    numbers = 0
    for element in root.iter():
        numbers += sum(cpuset.size(element.attrib[name]) for name in SETS & element.attrib.keys())
        if numbers > MOST_NUMBERS:
            raise ElementError(element, f"up to here its sets have over {MOST_NUMBERS} numbers")
    return _guest(root)


def _guest(root: Element) -> Guest:
    kind = root.get("type", "")
    if kind not in TYPES:
        raise ElementError(root, f"type '{kind[:40]}' is no KVM guest (one of {', '.join(TYPES)})")
    os_type = root.find("os/type")
    arch, machine = (
        ("", "") if os_type is None else (os_type.get("arch", ""), os_type.get("machine", ""))
    )
    vcpus, online = _vcpus(root)
    memory = _memory(root)
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
        cells=_cells(root, vcpus),
        memory=memory,
        max_memory=max(memory, _kib(root, "maxMemory")),
        huge_pages=_huge_pages(root),
        devices=tuple(sorted(set(_devices(root)))),
        iothreads=_iothreads(root),
        owned=_owned(root, vcpus, tagged),
        manager=_manager(root),
        wishes=_attributes(root, f"{{{POLICY_NAMESPACE}}}policy"),
        tagged=tagged,
        locked=root.find("memoryBacking/locked") is not None,
        protected=root.find("launchSecurity") is not None,
        shares_pages=root.find("memoryBacking/nosharepages") is None,
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
    most = _number(element, element.text or "")
    if not 1 <= most <= MOST_VCPUS:
        raise ElementError(element, f"<vcpu>: {most} is not from 1 to {MOST_VCPUS}")
    current = _number(element, element.get("current", str(most)))
    if not 1 <= current <= most:
        raise ElementError(element, f"<vcpu current>: {current} is not from 1 to {most}")
    listed = root.findall("vcpus/vcpu")
    if listed:
        on = {_attribute(one, "id") for one in listed if one.get("enabled") == "yes"}
        return most, tuple(sorted(number for number in on if number < most)) or (0,)
    return most, tuple(range(current))


def _topology(root: Element) -> CpuTopology | None:
    element = root.find("cpu/topology")
    if element is None:
        return None
    parts = {
        name: _attribute(element, name, 1)
        for name in ("sockets", "dies", "clusters", "cores", "threads")
    }
    if 0 in parts.values():
        raise ElementError(element, "<topology>: a 0 among its numbers")
    return CpuTopology(**parts)


def _cells(root: Element, vcpus: int) -> tuple[Cell, ...]:
    plugged = _plugged(root)
    cells = []
    taken: set[int] = set()
    for place, element in enumerate(root.iterfind("cpu/numa/cell")):
        number = _attribute(element, "id", place)
        cpus = _cpus(element, "cpus")
        if cpus & taken:
            raise ElementError(element, f"<cell>: vCPU {min(cpus & taken)} is in two cells")
        if max(cpus, default=0) >= vcpus:
            raise ElementError(element, f"<cell cpus>: the guest has no vCPU {max(cpus)}")
        taken |= cpus
        memory = memory_units.kib(element, element.get("memory", ""), element.get("unit", "KiB"))
        cells.append(Cell(number, cpus, memory + plugged.get(number, 0)))
    if len({cell.id for cell in cells}) < len(cells):
        raise ElementError(root, "<numa>: two cells have the same id")
    return tuple(sorted(cells, key=lambda cell: cell.id))


def _plugged(root: Element) -> Mapping[int, int]:
    """vNUMA cell → KiB of DIMMs and virtio-mem in it; nvdimm and pmem are files, not memory."""
    found: dict[int, int] = {}
    for element in root.iterfind("devices/memory"):
        size = element.find("target/size")
        if element.get("model") in {"dimm", "virtio-mem"} and size is not None:
            node = element.find("target/node")
            cell = 0 if node is None else _number(node, node.text or "")
            found[cell] = found.get(cell, 0) + memory_units.element_kib(size)
    return found


def _memory(root: Element) -> int:
    """<memory> counts DIMMs as libvirt writes it; what only cells and DIMMs say counts too."""
    cells = sum(
        memory_units.kib(element, element.get("memory", ""), element.get("unit", "KiB"))
        for element in root.iterfind("cpu/numa/cell")
    )
    memory = max(_kib(root, "memory"), cells + sum(_plugged(root).values()))
    if memory == 0:
        memory = _kib(root, "currentMemory")
    if memory == 0:
        element = root.find("memory")
        raise ElementError(root if element is None else element, "it has no <memory>")
    return memory


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
        pages.append(HugePages(size, _cpus(page, "nodeset") if "nodeset" in page.attrib else None))
    return tuple(pages) or (HugePages(None),)


# --- devices --------------------------------------------------------------------------------------


def _devices(root: Element) -> Iterator[str]:
    """PCI addresses of <hostdev>, <interface type='hostdev'> and <disk type='nvme'>."""
    for path in (
        "devices/hostdev[@type='pci']/source/address",
        "devices/interface[@type='hostdev']/source/address",
        "devices/interface/actual[@type='hostdev']/source/address",
        "devices/disk[@type='nvme']/source/address",
    ):
        for element in root.iterfind(path):
            yield _pci(element)


PCI_NUMBER = re.compile(r"0[xX]([0-9a-fA-F]{1,8})|(0[0-7]{0,9})|([1-9]\d{0,9})", re.ASCII)
"""Hexadecimal, octal or decimal, as strtoul reads with base 0 in libvirt."""


def _pci(element: Element) -> str:
    """The kernel's name of a PCI function; numbers may be decimal, 0x… or, as in C, octal."""
    limits = {"domain": 0xFFFFFFFF, "bus": 0xFF, "slot": 0x1F, "function": 7}
    parts = []
    for name, most in limits.items():
        text = element.get(name, "0").strip()
        found = PCI_NUMBER.fullmatch(text)
        if not found:
            raise ElementError(element, f"<address {name}>: '{printable(text[:40])}' is no number")
        number = int(found[1] or found[2] or found[3], 16 if found[1] else 8 if found[2] else 10)
        if number > most:
            raise ElementError(element, f"<address {name}>: {text} is more than {most:#x}")
        parts.append(number)
    return "{:04x}:{:02x}:{:02x}.{:x}".format(*parts)


def _iothreads(root: Element) -> dict[int, tuple[str, ...]]:
    listed = [_attribute(one, "id") for one in root.iterfind("iothreadids/iothread")]
    element = root.find("iothreads")
    count = 0 if element is None else _number(element, element.text or "")
    if element is not None and count > MOST_IOTHREADS:
        raise ElementError(element, f"<iothreads>: {count} is over {MOST_IOTHREADS}")
    free = iter(set(range(1, count + len(listed) + 1)) - set(listed))
    numbers = sorted([*listed, *(next(free) for _ in range(count - len(listed)))])
    served: dict[int, list[str]] = {number: [] for number in numbers}
    for disk in root.iterfind("devices/disk"):
        source = _disk(disk)
        for number in _serving(disk):
            if source and number in served:
                served[number].append(source)
    return {number: tuple(sorted(set(disks))) for number, disks in served.items()}


def _serving(disk: Element) -> list[int]:
    driver = disk.find("driver")
    if driver is None:
        return []
    mapped = [_attribute(one, "id") for one in driver.iterfind("iothreads/iothread")]
    return mapped or ([_attribute(driver, "iothread")] if driver.get("iothread") else [])


def _disk(disk: Element) -> str:
    """The kernel's name of its block device, or the PCI address of its NVMe; "" for another."""
    source = disk.find("source")
    if source is None:
        return ""
    address = source.find("address")
    if disk.get("type") == "nvme" and address is not None:
        return _pci(address)
    found = re.fullmatch(r"/dev/([\w.!-]+)", source.get("dev", ""), re.ASCII)
    return found.group(1) if found else ""


# --- what the owner wrote -------------------------------------------------------------------------


def _owned(root: Element, vcpus: int, tagged: Mapping[str, str]) -> UserPins:
    vcpu = root.find("vcpu")
    everywhere = frozenset() if vcpu is None else _cpus(vcpu, "cpuset")
    pins = dict.fromkeys(range(vcpus), everywhere) if everywhere else {}
    ours = _pairs(tagged.get("vcpus", ""))
    for pin in root.iterfind("cputune/vcpupin"):
        number, cpus = _attribute(pin, "vcpu"), _cpus(pin, "cpuset")
        if number < vcpus and ours.get(number) != cpus:
            pins[number] = cpus
    emulator = root.find("cputune/emulatorpin")
    emulated = None if emulator is None else _cpus(emulator, "cpuset")
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
            _attribute(node, "cellid"): _cpus(node, "nodeset")
            for node in root.iterfind("numatune/memnode")
        },
    )


def _iothreadpins(
    root: Element, ours: Mapping[int, frozenset[int] | None]
) -> dict[int, frozenset[int]]:
    pins = {
        _attribute(pin, "iothread"): _cpus(pin, "cpuset")
        for pin in root.iterfind("cputune/iothreadpin")
    }
    return {number: cpus for number, cpus in pins.items() if ours.get(number) != cpus}


def _numatune(root: Element, ours: str) -> tuple[str, frozenset[int]]:
    """Mode (strict where none is written, as in libvirt) and nodes; nothing where they are ours."""
    element = root.find("numatune/memory")
    if element is None:
        return "", frozenset()
    mode, nodes = element.get("mode", "strict"), _cpus(element, "nodeset")
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
            yield f"<{path}><{printable(name[:40])}> is not understood"
    if any(child.tag.endswith("}commandline") for child in root):
        yield "arguments passed to QEMU (qemu:commandline) are not read"
    if root.find("devices/hostdev[@type='mdev']") is not None:
        yield "the NUMA node of its mediated devices (mdev) is not known"
    if root.find("cputune/cachetune") is not None:
        yield "cachetune keeps parts of a cache for it, which is not counted"
    if root.find("uuid") is None:
        yield "it has no <uuid>: it is known by its name"


# --- small change ---------------------------------------------------------------------------------


def _number(element: Element, text: str) -> int:
    try:
        return memory_units.number(text)
    except ValueError as error:
        raise ElementError(element, f"<{element.tag}>: {error}") from error


def _attribute(element: Element, name: str, default: int | None = None) -> int:
    text = element.get(name)
    if text is None and default is not None:
        return default
    try:
        return memory_units.number(text or "")
    except ValueError as error:
        raise ElementError(element, f"<{element.tag} {name}>: {error}") from error


def _cpus(element: Element, name: str) -> frozenset[int]:
    try:
        return cpuset.parse_excluding(element.get(name, ""))
    except ValueError as error:
        raise ElementError(element, f"<{element.tag} {name}>: {error}") from error
