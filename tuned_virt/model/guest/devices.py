# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's devices, read from its XML: what it is given of the host, and IOThreads' disks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from tuned_virt.model import xml_values
from tuned_virt.model.guest.text import printable
from tuned_virt.model.xml import ElementError

QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"

MOST_IOTHREADS = 1024
"""A number beyond is a mistake or an attack."""


PASSED_THROUGH = (
    "devices/hostdev[@type='pci']/source/address",
    "devices/interface[@type='hostdev']/source/address",
    "devices/interface/actual[@type='hostdev']/source/address",
    "devices/disk[@type='nvme']/source/address",
)

VDPA = ("devices/interface[@type='vdpa']", "devices/disk[@type='vhostvdpa']")


def passed_through(root: Element) -> Iterator[str]:
    """PCI addresses of <hostdev>, <interface type='hostdev'> and <disk type='nvme'>, UUIDs of
    mediated devices and the kernel's names of vDPA's ("vhost-vdpa-0"), and what of these is among
    arguments for QEMU."""
    for path in PASSED_THROUGH:
        for element in root.iterfind(path):
            yield _pci(element)
    for element in root.iterfind("devices/hostdev[@type='mdev']/source/address"):
        yield printable(element.get("uuid", "").strip().lower()[:36]) or "mdev"
    for path in VDPA:
        for source in root.iterfind(f"{path}/source"):
            yield from _named(source.get("dev", ""))
    for argument in filter(holds_memory, _arguments(root)):
        yield from named(argument)


def _arguments(root: Element) -> Iterator[str]:
    for one in root.iterfind(f"{{{QEMU}}}commandline/{{{QEMU}}}arg"):
        yield one.get("value", "")


NAMING = re.compile(
    r"""(?:^|[,{\s"])(?:host|sysfsdev|vhostdev|path)"?\s*[=:]\s*"?([^,"}]+)""", re.ASCII
)
"""QEMU's properties that name a device of the host, as name=value or JSON."""

NAME = re.compile(
    r"(?P<domain>[0-9a-f]{4,8}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7]"
    r"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|vhost-vdpa-\d{1,9}",
    re.ASCII,
)
"""A PCI function, a mediated device or a vDPA one, as the kernel calls it."""


def named(argument: str) -> Iterator[str]:
    """Devices of the host that an argument for QEMU names."""
    for path in NAMING.findall(argument.lower()):
        yield from _named(path)


def _named(path: str) -> Iterator[str]:
    found = NAME.fullmatch(path.rpartition("/")[2])
    if found:
        short = ":" in found[0] and not found["domain"]
        yield f"0000:{found[0]}" if short else found[0]


def hold_memory(root: Element) -> bool:
    """Whether a device without a PCI address on the host holds the guest's pages.

    Mediated devices do by VFIO, vDPA's by the kernel's vhost-vdpa (libvirt's formatdomain: mdev,
    <interface type='vdpa'>, <disk type='vhostvdpa'>), and those among arguments for QEMU.
    """
    paths = ("devices/hostdev[@type='mdev']", *VDPA)
    if any(root.find(path) is not None for path in paths):
        return True
    return any(map(holds_memory, _arguments(root)))


HOLDING = re.compile(
    r"(?:(?:driver|type)=)?(?:vfio-(?:pci|ap|ccw|platform)|vhost-vdpa)\b"
    r'|.*"(?:driver|type)"\s*:\s*"(?:vfio-|vhost-vdpa|virtio-blk-vhost-vdpa)',
    re.ASCII | re.DOTALL,
)
"""What QEMU takes after -device, -netdev and -blockdev, as names and values or as JSON."""


def holds_memory(argument: str) -> bool:
    """Whether an argument for QEMU is a device of VFIO or vDPA."""
    return HOLDING.match(argument) is not None


def hold_all_memory(root: Element) -> bool:
    """Whether any device holds the guest's pages, also one with a PCI address on the host."""
    return any(root.find(path) is not None for path in PASSED_THROUGH) or hold_memory(root)


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
            raise ElementError(
                element, f"<address {name}>: '{printable(text[:40])}' is not a number"
            )
        number = int(found[1] or found[2] or found[3], 16 if found[1] else 8 if found[2] else 10)
        if number > most:
            raise ElementError(element, f"<address {name}>: {text} is more than {most:#x}")
        parts.append(number)
    return "{:04x}:{:02x}:{:02x}.{:x}".format(*parts)


def iothreads(root: Element) -> dict[int, tuple[str, ...]]:
    """IOThread → disks that it serves."""
    listed = [xml_values.attribute(one, "id") for one in root.iterfind("iothreadids/iothread")]
    element = root.find("iothreads")
    count = 0 if element is None else xml_values.number(element)
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
    mapped = [xml_values.attribute(one, "id") for one in driver.iterfind("iothreads/iothread")]
    return mapped or ([xml_values.attribute(driver, "iothread")] if driver.get("iothread") else [])


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
