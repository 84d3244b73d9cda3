# SPDX-License-Identifier: GPL-2.0-or-later
"""A Host as others show it: libvirt's capabilities, and the kernel's sysfs, new and old."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tuned_virt.kernel import cpuset
from tuned_virt.kernel.files import KernelFileAbsent, KernelFS
from tuned_virt.model.topology import Host, NumaNode


def capabilities(host: Host) -> str:
    """As `virsh capabilities` has it: CPUs that are offline have only a number."""
    root = ET.Element("capabilities")
    top = ET.SubElement(root, "host")
    ET.SubElement(ET.SubElement(top, "cpu"), "arch").text = host.arch
    cells = ET.SubElement(ET.SubElement(top, "topology"), "cells", num=str(len(host.nodes)))
    for node in host.nodes:
        cell = ET.SubElement(cells, "cell", id=str(node.id))
        ET.SubElement(cell, "memory", unit="KiB").text = str(node.memory)
        for size, count in node.pages.items():
            ET.SubElement(cell, "pages", unit="KiB", size=str(size)).text = str(count)
        distances = ET.SubElement(cell, "distances")
        for other, value in node.distances.items():
            ET.SubElement(distances, "sibling", id=str(other), value=str(value))
        cpus = ET.SubElement(cell, "cpus", num=str(len(node.cpus)))
        for cpu in sorted(node.cpus):
            ET.SubElement(cpus, "cpu", _attributes(host, cpu))
    banks = ET.SubElement(top, "cache")
    for number, cache in enumerate(host.caches):
        shared = {"cpus": cpuset.text(cache.cpus), "size": str(cache.size), "unit": "KiB"}
        ET.SubElement(banks, "bank", {"id": str(number), "level": "3", "type": "both", **shared})
    return ET.tostring(root, encoding="unicode")


def _attributes(host: Host, cpu: int) -> dict[str, str]:
    detail = host.cpus.get(cpu)
    if detail is None:
        return {"id": str(cpu)}
    return {
        "id": str(cpu),
        "socket_id": str(detail.socket),
        "die_id": str(detail.die),
        "core_id": str(detail.core),
        "siblings": cpuset.text(detail.siblings),
    }


# --- sysfs ----------------------------------------------------------------------------------------


class Sysfs(KernelFS):
    """A host's files, in memory; a text that begins with "->" is a link's."""

    def __init__(self, host: Host, *, masks: bool = False) -> None:
        """With masks as kernels had them for years."""
        super().__init__(Path("/nowhere"))
        texts = {**_cpus(host, masks), **_nodes(host, masks), **_devices(host)}
        tree: dict[str, Any] = {}
        for path, text in texts.items():
            *folders, name = path.split("/")
            _folder(tree, folders)[name] = str(text)
        for cpu in host.offline:
            _folder(tree, [*CPU.split("/"), f"cpu{cpu}"])
        self.__dict__["tree"] = tree

    def write_to(self, root: Path) -> None:
        """As files below a folder."""
        _write(self._tree, root)

    @property
    def _tree(self) -> dict[str, Any]:
        found: dict[str, Any] = self.__dict__["tree"]
        return found

    def _at(self, path: str) -> Any:
        found: Any = self._tree
        for name in path.strip("/").split("/"):
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def exists(self, path: str) -> bool:
        return self._at(path) is not None

    def read(self, path: str) -> str:
        found = self._at(path)
        if not isinstance(found, str):
            raise KernelFileAbsent(path, "no such file")
        return found.strip()

    def names(self, path: str) -> list[str]:
        return list(self._at(path) or ())

    def link(self, path: str) -> str | None:
        return str(self._at(path)).partition(LINK)[2] or None

    def glob(self, pattern: str) -> list[str]:
        folder, _, wanted = pattern.rpartition("/")
        return [f"{folder}/{name}" for name in sorted(self.names(folder)) if fnmatch(name, wanted)]


LINK = "->"


def _folder(tree: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    for name in names:
        tree = tree.setdefault(name, {})
    return tree


def _write(tree: Mapping[str, Any], root: Path) -> None:
    root.mkdir(exist_ok=True)
    for name, content in tree.items():
        if isinstance(content, dict):
            _write(content, root / name)
        elif content.startswith(LINK):
            (root / name).symlink_to(content[len(LINK) :])
        else:
            (root / name).write_text(f"{content}\n")


CPU = "sys/devices/system/cpu"
NODE = "sys/devices/system/node"


def _set(path: str, masks: bool, cpus: Iterable[int]) -> tuple[str, str]:
    """A file with a set of CPUs: its name, and its text."""
    as_mask, as_list = SETS[path.rpartition("/")[2]]
    folder = path.rpartition("/")[0]
    if not masks:
        return f"{folder}/{as_list}", cpuset.text(cpus)
    bits = f"{sum(1 << cpu for cpu in cpus):x}"
    padded = bits.zfill(-(-len(bits) // 8) * 8)
    return f"{folder}/{as_mask}", ",".join(padded[i : i + 8] for i in range(0, len(padded), 8))


SETS = {
    "siblings": ("thread_siblings", "core_cpus_list"),
    "sharing": ("shared_cpu_map", "shared_cpu_list"),
    "cpus": ("cpumap", "cpulist"),
}
"""What a set is called as a mask, and as a list."""


def _cpus(host: Host, masks: bool) -> Mapping[str, object]:
    files: dict[str, object] = {
        f"{CPU}/online": cpuset.text(host.cpus),
        f"{CPU}/isolated": cpuset.text(host.isolated),
        f"{CPU}/nohz_full": cpuset.text(host.nohz_full) or " (null)",
        "proc/meminfo": f"Hugepagesize: {host.huge_page} kB",
    }
    for cpu, detail in host.cpus.items():
        topology = f"{CPU}/cpu{cpu}/topology"
        files[f"{topology}/physical_package_id"] = detail.socket
        files[f"{topology}/die_id"] = detail.die
        files[f"{topology}/core_id"] = detail.core
        files.update([_set(f"{topology}/siblings", masks, detail.siblings)])
    slow = [cpu for cpu, detail in host.cpus.items() if detail.capacity < 1024]
    if slow and host.arch == "x86_64":
        files["sys/devices/cpu_atom/cpus"] = cpuset.text(slow)
    elif slow:
        files.update((f"{CPU}/cpu{c}/cpu_capacity", d.capacity) for c, d in host.cpus.items())
    for cache in host.caches:
        for cpu in cache.cpus:
            index = f"{CPU}/cpu{cpu}/cache/index3"
            files.update({f"{index}/type": "Unified", f"{index}/level": 3})
            files[f"{index}/size"] = f"{cache.size}K"
            files.update([_set(f"{index}/sharing", masks, cache.cpus)])
    return files


def _nodes(host: Host, masks: bool) -> Mapping[str, object]:
    files: dict[str, object] = {}
    for node in host.nodes:
        folder = f"{NODE}/node{node.id}"
        files.update([_set(f"{folder}/cpus", masks, node.cpus)])
        files[f"{folder}/meminfo"] = _meminfo(node)
        if node.distances:
            files[f"{folder}/distance"] = " ".join(map(str, node.distances.values()))
        for size, count in node.pages.items():
            pool = f"{folder}/hugepages/hugepages-{size}kB"
            files[f"{pool}/nr_hugepages"] = count
            files[f"{pool}/free_hugepages"] = (node.free_pages or {})[size]
    return files


def _meminfo(node: NumaNode) -> str:
    """Half of what is available is free, the rest in caches that give way."""
    available = node.available or 0
    cached = available // 2
    counts = {"MemTotal": node.memory, "MemFree": available - cached, "Inactive(file)": cached}
    return "\n".join(f"Node {node.id} {name}: {kib} kB" for name, kib in counts.items())


def _devices(host: Host) -> Mapping[str, object]:
    files: dict[str, object] = {}
    for address, node in host.devices.items():
        files[f"sys/bus/pci/devices/{address}/numa_node"] = node
    for disk, address in zip(host.disks, host.devices):
        files[f"sys/block/{disk}"] = (
            f"{LINK}../devices/pci0000:3a/{address}/nvme/{disk[:-2]}/{disk}"
        )
    return files
