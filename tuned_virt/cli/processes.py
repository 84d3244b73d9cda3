# SPDX-License-Identifier: GPL-2.0-or-later
"""Running guests without libvirt: from their QEMU processes, as the XML that the planner reads.

A thread that may not run everywhere counts as its owner's, unless vm_pinning put it there: without
libvirt nobody can tell, and what is an owner's is never moved.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator
from xml.etree.ElementTree import Element, SubElement, tostring

from tuned_virt.kernel import numa_maps
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.libvirt_api.binding import missing
from tuned_virt.model.guest import qemu_process, qemu_threads
from tuned_virt.model.pins import EMULATOR, Part, Pins

ONLINE = "/sys/devices/system/cpu/online"

MEMORY = re.compile(r"-m\0(?:size=)?(\d{1,15})([bkmgt]?)", re.IGNORECASE)
"""QEMU's -m: MiB where it has no unit."""

VCPUS = re.compile(r"-smp\0(?:cpus=)?(\d{1,4})\b")

DEVICE = re.compile(r'"?host"?[:=]"?([0-9a-f]{4}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])\b')
"""The host's PCI device in QEMU's -device vfio-pci, as JSON or as option."""

UNKNOWN = (
    "their policies, managers, vNUMA cells and IOThread disks are unknown; pins that"
    " vm_pinning has not set are treated as the owner's"
)


def remarks(fs: KernelFS, guests: int) -> Iterator[str]:
    """What is not known of so many guests."""
    reason = missing() or "it does not answer"
    if guests:
        yield (
            f"libvirt is unavailable ({reason}): {guests} guests are read from their"
            f" processes; {UNKNOWN}"
        )
    elif not fs.sees_all_processes():
        yield (
            f"no guest is visible: libvirt is unavailable ({reason}), /proc does not show all"
            " processes"
        )


def documents(fs: KernelFS, ours: Collection[int]) -> dict[str, tuple[int, str]]:
    """Process and XML by name; `ours` are processes whose pins are vm_pinning's."""
    found = {}
    for guest in qemu_process.QemuProcesses(fs).guests(time.monotonic()):
        name = guest.name or f"process-{guest.pid}"
        if name in found:
            name = f"{name}-{guest.pid}"
        found[name] = (guest.pid, tostring(_domain(fs, guest, name, ours), encoding="unicode"))
    return found


def _domain(
    fs: KernelFS, guest: qemu_process.QemuProcess, name: str, ours: Collection[int]
) -> Element:
    command = fs.read_permitted(f"/proc/{guest.pid}/cmdline") or ""
    threads = qemu_threads.read(fs, guest.pid)
    domain = Element("domain", type="kvm")
    SubElement(domain, "name").text = name
    if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", guest.uuid):
        SubElement(domain, "uuid").text = guest.uuid
    SubElement(domain, "memory", unit="b").text = str(_bytes(command) or guest.resident * 1024)
    _vcpus(domain, threads, command)
    _backing(domain, _areas(fs, guest.pid), guest)
    if guest.pid not in ours:
        now = qemu_threads.pins(qemu_threads.affinity(fs, guest.pid, threads))
        _pins(domain, now, (fs.read_optional(ONLINE) or "").strip())
    devices = SubElement(domain, "devices")
    for found in sorted(set(DEVICE.findall(command))):
        parts = dict(zip(("domain", "bus", "slot", "function"), (f"0x{part}" for part in found)))
        source = SubElement(SubElement(devices, "hostdev", type="pci"), "source")
        SubElement(source, "address", parts)
    return domain


def _bytes(command: str) -> int:
    found = MEMORY.search(command)
    if not found:
        return 0
    unit = "bkmgt".index(found[2].lower() or "m")
    return int(found[1]) << 10 * unit


def _vcpus(domain: Element, threads: qemu_threads.QemuThreads, command: str) -> None:
    """By the threads' names, or where QEMU was told to give none (debug-threads=off), by -smp."""
    told = VCPUS.search(command)
    named = [one.number for one in threads if one.part is Part.VCPU]
    numbers = named or list(range(int(told[1]) if told else 1))
    SubElement(domain, "vcpu").text = str(max(numbers) + 1)
    listed = SubElement(domain, "vcpus")
    for number in numbers:
        SubElement(listed, "vcpu", id=str(number), enabled="yes")
    iothreads = SubElement(domain, "iothreadids")
    for one in threads:
        if one.part is Part.IOTHREAD:
            SubElement(iothreads, "iothread", id=str(one.number))


def _areas(fs: KernelFS, pid: int) -> list[numa_maps.Area]:
    """None where they cannot be read: who asks where its memory is says why."""
    try:
        return numa_maps.read(fs, pid)
    except KernelFileError:
        return []


def _backing(domain: Element, areas: list[numa_maps.Area], guest: qemu_process.QemuProcess) -> None:
    backing = SubElement(domain, "memoryBacking")
    sizes = {area.page for area in areas if area.huge}
    if sizes:
        pages = SubElement(backing, "hugepages")
        SubElement(pages, "page", size=str(max(sizes)), unit="KiB")
    if not guest.shares_pages:
        SubElement(backing, "nosharepages")


def _pins(domain: Element, now: Pins, online: str) -> None:
    tune = SubElement(domain, "cputune")
    for target, cpus in now.items():
        if cpus != online:
            kind = target.part.value.lower()
            number = {} if target == EMULATOR else {kind: str(target.number)}
            SubElement(tune, f"{kind}pin", {**number, "cpuset": cpus})
