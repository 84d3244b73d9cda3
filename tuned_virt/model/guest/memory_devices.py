# SPDX-License-Identifier: GPL-2.0-or-later
"""<devices><memory>: DIMMs and virtio-mem; nvdimm and pmem are files, not memory.

A virtio-mem device may grow to <size>; the guest gets <requested> of it, and has <current> while it
runs. <source> says in which pages and on which of the host's nodes (libvirt's formatdomain, "Memory
devices").
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from tuned_virt.model import memory_units, xml_values
from tuned_virt.model.guest.model import MemoryDevice
from tuned_virt.model.xml import ElementError

MODELS = ("dimm", "virtio-mem")


def read(root: Element) -> tuple[MemoryDevice, ...]:
    """Those of a domain, in its order. Raises ElementError."""
    return tuple(_devices(root))


def _devices(root: Element) -> Iterator[MemoryDevice]:
    for element in root.iterfind("devices/memory"):
        size = element.find("target/size")
        if element.get("model") not in MODELS or size is None:
            continue
        most = memory_units.element_kib(size)
        requested = _kib(element, "target/requested", most)
        current = _kib(element, "target/current", requested)
        node = element.find("target/node")
        yield MemoryDevice(
            cell=0 if node is None else xml_values.number(node),
            memory=min(max(requested, current), most),
            size=most,
            growing=max(0, min(requested, most) - current),
            page_kib=_page(element),
            nodes=_nodes(element),
        )


def _kib(element: Element, path: str, default: int) -> int:
    found = element.find(path)
    return default if found is None else memory_units.element_kib(found)


def _page(element: Element) -> int | None:
    found = element.find("source/pagesize")
    if found is None:
        return None
    size = memory_units.element_kib(found)
    if size == 0:
        raise ElementError(found, "<pagesize>: 0")
    return size


def _nodes(element: Element) -> frozenset[int]:
    found = element.find("source/nodemask")
    return frozenset() if found is None else xml_values.cpu_set_text(found)
