# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine as the planner needs it, read from libvirt's capabilities XML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from xml.etree.ElementTree import Element

from tuned_virt.frozen_dataclasses import dataclass, field, replace
from tuned_virt.model import memory_units, xml, xml_values
from tuned_virt.model.topology import partitions
from tuned_virt.model.topology.grid import Grid, build
from tuned_virt.model.xml import ElementError, XmlError

LOCAL = 10
"""A node's distance to itself (ACPI's SLIT), and REMOTE to others where no table is given."""
REMOTE = 20

MOST_CPUS = 16_384
"""libvirt's own limit (VIR_HOST_CPU_MASK_LEN is 16384 CPUs)."""


class HostError(XmlError):
    """Why a host's description is not read."""


@dataclass(frozen=True)
class CpuDetail:
    """One pCPU. Siblings are the threads of its core, itself among them.

    `capacity` compares cores of one machine: 1024 is the fastest kind (cpu_capacity of the kernel).
    """

    id: int
    node: int
    socket: int
    die: int
    core: int
    siblings: frozenset[int]
    capacity: int = 1024


@dataclass(frozen=True)
class NumaNode:
    """One NUMA node: memory in KiB, pages as page size in KiB → number in the pool.

    `available` (KiB free, or in caches that give way) and `free_pages` are None where only the
    machine itself could tell, as with capabilities from a file.
    """

    id: int
    cpus: frozenset[int]
    memory: int
    distances: Mapping[int, int]
    pages: Mapping[int, int]
    available: int | None = None
    free_pages: Mapping[int, int] | None = None


@dataclass(frozen=True)
class Cache:
    """A last-level cache and the CPUs that share it; size in KiB."""

    cpus: frozenset[int]
    size: int


@dataclass(frozen=True)
class Host:
    """A machine. `cpus` has those that are online, by number; nodes also those without CPUs.

    offline    numbers of CPUs that are there and offline
    isolated   CPUs that the scheduler leaves alone (isolcpus); nohz_full: without tick
    devices    PCI address ("0000:3b:00.0"), UUID of a mediated device, or name of a vDPA one
               ("vhost-vdpa-0") → NUMA node, where the firmware says one
    disks      kernel name ("nvme0n1") → NUMA node of its controller
    huge_page  default size of huge pages, in KiB
    cpusets    libvirt's partition of guests ("/machine") → CPUs that its control group leaves them,
               where those differ; see `partitions`
    notes      what was not understood
    """

    nodes: tuple[NumaNode, ...]
    cpus: Mapping[int, CpuDetail]
    caches: tuple[Cache, ...] = ()
    offline: frozenset[int] = frozenset()
    isolated: frozenset[int] = frozenset()
    nohz_full: frozenset[int] = frozenset()
    devices: Mapping[str, int] = field(default_factory=dict)
    disks: Mapping[str, int] = field(default_factory=dict)
    arch: str = ""
    huge_page: int = 2048
    notes: tuple[str, ...] = ()
    cpusets: Mapping[str, frozenset[int]] = field(default_factory=dict)

    @staticmethod
    def from_xml(text: str) -> Host:
        """Read `virsh capabilities`. Raises HostError."""
        return xml.read(text, "capabilities", _read, HostError)

    @cached_property
    def by_id(self) -> Mapping[int, NumaNode]:
        """The nodes by number."""
        return {node.id: node for node in self.nodes}

    @cached_property
    def grid(self) -> Grid:
        """The CPUs as bits, see `grid`."""
        return build(self)

    def allowed(self, partition: str) -> frozenset[int] | None:
        """CPUs that the cpuset of a partition leaves its guests; None for all."""
        if not self.cpusets:
            return None
        cpus = partitions.of(self.cpusets, partition)
        return None if cpus is None or self.cpus.keys() <= cpus else cpus

    def distance(self, one: int, other: int) -> int:
        """Between two nodes; 10 is local."""
        return self.by_id[one].distances.get(other, LOCAL if one == other else REMOTE)


def _read(root: Element) -> Host:
    cells = root.findall("host/topology/cells/cell")
    if not cells:
        raise HostError("there is no <host><topology><cells>: not the capabilities of a host")
    nodes = tuple(sorted(map(_node, cells), key=lambda node: node.id))
    found = list(_cpus(cells))
    cpus = {cpu.id: cpu for cpu in found if cpu.siblings}
    notes = []
    if not cpus:
        cpus = {cpu.id: replace(cpu, core=cpu.id, siblings=frozenset({cpu.id})) for cpu in found}
        notes.append("no CPU has siblings: each is treated as a separate core")
    if not cpus:
        raise ElementError(cells[0], "no node has a CPU")
    _check_unique(cells, nodes, found)
    return Host(
        nodes=nodes,
        cpus=cpus,
        caches=_caches(root),
        offline=frozenset(cpu.id for cpu in found) - cpus.keys(),
        arch=root.findtext("host/cpu/arch", ""),
        notes=tuple(notes),
    )


def _check_unique(cells: list[Element], nodes: tuple[NumaNode, ...], cpus: list[CpuDetail]) -> None:
    if len({node.id for node in nodes}) < len(nodes):
        raise ElementError(cells[-1], "two nodes have the same id")
    if len({cpu.id for cpu in cpus}) < len(cpus):
        raise ElementError(cells[-1], "two CPUs have the same id")
    if len(cpus) > MOST_CPUS:
        raise ElementError(cells[-1], f"more than {MOST_CPUS} CPUs")


def _node(cell: Element) -> NumaNode:
    memory = cell.find("memory")
    number = xml_values.attribute(cell, "id")
    return NumaNode(
        id=number,
        cpus=frozenset(xml_values.attribute(cpu, "id") for cpu in cell.iterfind("cpus/cpu")),
        memory=0 if memory is None else memory_units.element_kib(memory),
        distances={
            xml_values.attribute(other, "id"): xml_values.attribute(other, "value")
            for other in cell.iterfind("distances/sibling")
        },
        pages={
            memory_units.kib(
                page, page.get("size", ""), page.get("unit", "KiB")
            ): xml_values.number(page)
            for page in cell.iterfind("pages")
        },
    )


def _cpus(cells: list[Element]) -> Iterator[CpuDetail]:
    """Those without siblings are offline: libvirt writes only their id."""
    for cell in cells:
        node = xml_values.attribute(cell, "id")
        for cpu in cell.iterfind("cpus/cpu"):
            yield CpuDetail(
                id=xml_values.attribute(cpu, "id"),
                node=node,
                socket=xml_values.attribute(cpu, "socket_id", 0),
                die=xml_values.attribute(cpu, "die_id", 0),
                core=xml_values.attribute(cpu, "core_id", 0),
                siblings=xml_values.cpu_set(cpu, "siblings", excluding=False),
            )


def _caches(root: Element) -> tuple[Cache, ...]:
    banks = root.findall("host/cache/bank")
    last = max((xml_values.attribute(bank, "level") for bank in banks), default=0)
    found = (
        Cache(
            xml_values.cpu_set(bank, "cpus", excluding=False),
            memory_units.kib(bank, bank.get("size", "0"), bank.get("unit", "KiB")),
        )
        for bank in banks
        if xml_values.attribute(bank, "level") == last and bank.get("type") != "code"
    )
    shared = [cache for cache in found if cache.cpus]
    return tuple(sorted(shared, key=lambda cache: min(cache.cpus)))
