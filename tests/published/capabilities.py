# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's capabilities of a host, made of what `lstopo --of xml` says of it.

As libvirt makes them: every CPU is in the cell of one NUMA node, here the smallest that lstopo
gives it, of several the first (a node without CPUs has those near it, in lstopo); CPUs that are
offline have only a number; caches are those of level 3 and above.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping

from tuned_virt.kernel import cpuset

LEAST_LEVEL = 3

MEMORY_SIDE = "MemorySideCache"
"""A cache of memory, not of CPUs, which lstopo shows as one of level 3."""


def bits(text: str | None) -> frozenset[int]:
    """hwloc's bitmap, 32 bits in each comma, as numbers."""
    mask = 0
    for word in (text or "").split(","):
        mask = mask << 32 | int(word or "0", 16)
    return frozenset(bit for bit in range(mask.bit_length()) if mask >> bit & 1)


def of_lstopo(text: str) -> str:
    """The <capabilities>."""
    root = ET.fromstring(text)
    made = ET.Element("capabilities")
    host = ET.SubElement(made, "host")
    arch = root.find("object/info[@name='Architecture']")
    cpu = ET.SubElement(host, "cpu")
    ET.SubElement(cpu, "arch").text = "x86_64" if arch is None else arch.get("value")
    nodes = _all(root, "NUMANode")
    cells = ET.SubElement(ET.SubElement(host, "topology"), "cells", num=str(len(nodes)))
    distances, cpus = _distances(root), _cpus(root)
    homes = _homes(root, nodes)
    for node in nodes:
        _cell(cells, node, distances, [cpus[cpu] for cpu in sorted(homes) if homes[cpu] is node])
    _caches(host, root)
    return ET.tostring(made, encoding="unicode")


def _all(root: ET.Element, kind: str) -> list[ET.Element]:
    found = (one for one in root.iter("object") if one.get("type") == kind)
    return sorted(found, key=lambda one: int(one.get("os_index", "-1")))


def _homes(root: ET.Element, nodes: list[ET.Element]) -> Mapping[int, ET.Element]:
    """CPU → its node; of a CPU that is offline the first node. A few online are in none."""
    machine = root.find("object")
    assert machine is not None
    online = {int(pu.get("os_index", "")) for pu in _all(root, "PU")}
    homes = dict.fromkeys(bits(machine.get("complete_cpuset")) - online, nodes[0])
    for node in sorted(nodes, key=lambda node: -len(bits(node.get("cpuset")))):
        homes.update(dict.fromkeys(bits(node.get("cpuset")), node))
    for node in reversed(nodes):
        same = [one for one in nodes if one.get("cpuset") == node.get("cpuset")]
        homes.update({cpu: same[0] for cpu, home in homes.items() if home is node})
    return homes


def _cpus(root: ET.Element) -> Mapping[int, dict[str, str]]:
    """CPU → the attributes of its <cpu>; without siblings where it is offline."""
    machine = root.find("object")
    assert machine is not None
    found = {cpu: {"id": str(cpu)} for cpu in bits(machine.get("complete_cpuset"))}
    for pu in _all(root, "PU"):
        attributes = found[int(pu.get("os_index", ""))]
        attributes.update(socket_id="0", die_id="0", core_id="0", siblings=attributes["id"])
    for kind, name in (("Package", "socket_id"), ("Die", "die_id"), ("Core", "core_id")):
        for one in _all(root, kind):
            for cpu in bits(one.get("cpuset")):
                found[cpu][name] = one.get("os_index", "0")
    for core in _all(root, "Core"):
        siblings = bits(core.get("cpuset"))
        for cpu in siblings:
            found[cpu]["siblings"] = cpuset.text(siblings)
    return found


def _cell(
    cells: ET.Element,
    node: ET.Element,
    distances: Mapping[str, Mapping[str, str]],
    cpus: list[dict[str, str]],
) -> None:
    number = node.get("os_index", "")
    cell = ET.SubElement(cells, "cell", id=number)
    memory = ET.SubElement(cell, "memory", unit="KiB")
    memory.text = str(int(node.get("local_memory", "0")) // 1024)
    for page in node.iterfind("page_type"):
        size = str(int(page.get("size", "")) // 1024)
        ET.SubElement(cell, "pages", unit="KiB", size=size).text = page.get("count")
    if number in distances:
        row = ET.SubElement(cell, "distances")
        for other, value in distances[number].items():
            ET.SubElement(row, "sibling", id=other, value=value)
    listed = ET.SubElement(cell, "cpus", num=str(len(cpus)))
    for attributes in cpus:
        ET.SubElement(listed, "cpu", attributes)


def _distances(root: ET.Element) -> Mapping[str, Mapping[str, str]]:
    """Node → node → distance, as text."""
    for table in root.iter("distances2"):
        if table.get("name") == "NUMALatency":
            order = [number for part in table.iter("indexes") for number in _words(part)]
            values = iter([value for part in table.iter("u64values") for value in _words(part)])
            return {one: {other: next(values) for other in order} for one in order}
    return {}


def _words(part: ET.Element) -> list[str]:
    return (part.text or "").split()


def _caches(host: ET.Element, root: ET.Element) -> None:
    found = list(_banks(root))
    if found:
        element = ET.SubElement(host, "cache")
        for number, attributes in enumerate(found):
            ET.SubElement(element, "bank", {"id": str(number), **attributes})


def _banks(root: ET.Element) -> Iterator[dict[str, str]]:
    for one in root.iter("object"):
        is_cache = one.get("type", "").endswith("Cache") and one.get("subtype") != MEMORY_SIDE
        if is_cache and int(one.get("depth", "0")) >= LEAST_LEVEL:
            yield {
                "level": one.get("depth", ""),
                "type": {"0": "both", "1": "data", "2": "code"}[one.get("cache_type", "0")],
                "size": str(int(one.get("cache_size", "0")) // 1024),
                "unit": "KiB",
                "cpus": cpuset.text(bits(one.get("cpuset"))),
            }
