# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest asks for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.model.xml import XmlError

POLICY_NAMESPACE = "urn:tuned-virt-plus:policy:1"
"""XML namespace of the owner's wish in <metadata>: <policy xmlns="…" policy="dedicated"/>."""

PLACEMENT_NAMESPACE = "urn:tuned-virt-plus:placement:1"
"""XML namespace of our tag: <placement xmlns="…" vcpus="0=4 1=5" emulator="0-1"
iothreads="1=0-1" numatune="restrictive=0"/>. A pin that the tag names, with this value, is ours."""


class GuestError(XmlError):
    """Why a domain's XML is not read, with its line where that is known."""


@dataclass(frozen=True)
class CpuTopology:
    """<cpu><topology>: the guest's own sockets, dies a socket, clusters, cores and threads."""

    sockets: int = 1
    dies: int = 1
    clusters: int = 1
    cores: int = 1
    threads: int = 1


@dataclass(frozen=True)
class Cell:
    """A vNUMA cell of the guest: its vCPUs and its memory in KiB, devices' in it included."""

    id: int
    vcpus: frozenset[int]
    memory: int


@dataclass(frozen=True)
class HugePages:
    """<hugepages>: page size in KiB (None: the host's default), for which cells (None: all)."""

    size: int | None
    cells: frozenset[int] | None = None


@dataclass(frozen=True)
class MemoryDevice:
    """A DIMM or virtio-mem device, in KiB.

    cell      the vNUMA cell that it is in
    memory    what the guest gets of it; of virtio-mem the requested part, or what it still has
    size      the most that it can be
    growing   requested and not there yet, of a guest that runs
    page_kib  pages that it names for itself (None: as its cell); nodes: the host's (none: the same)
    """

    cell: int
    memory: int
    size: int = 0
    growing: int = 0
    page_kib: int | None = None
    nodes: frozenset[int] = frozenset()


@dataclass(frozen=True)
class UserPins:
    """What the owner wrote about places: it is counted and never moved.

    vcpus       vCPU → CPUs, from <vcpupin> and <vcpu cpuset>; iothreads: IOThread → CPUs
    emulator    CPUs of <emulatorpin>, None without
    automatic   placement='auto': numad chooses when the guest starts
    realtime    <vcpusched>, <emulatorsched> or <iothreadsched> with fifo or rr
    memory      mode of <numatune><memory>, "" without; nodes: its nodeset
    memnodes    vNUMA cell → nodes, from <memnode>
    """

    vcpus: Mapping[int, frozenset[int]] = field(default_factory=dict)
    emulator: frozenset[int] | None = None
    iothreads: Mapping[int, frozenset[int]] = field(default_factory=dict)
    automatic: bool = False
    realtime: bool = False
    memory: str = ""
    nodes: frozenset[int] = frozenset()
    memnodes: Mapping[int, frozenset[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Guest:
    """A guest. Memory is in KiB; the name is another's text, see `printable`.

    vcpus       most that it can have; online: those that it has now
    memory      what it may use at start, memory devices included; max_memory: with all that can be
                plugged; ballooned: what its balloon keeps of memory
    devices     PCI addresses ("0000:3b:00.0") on the host that it is given, UUIDs of mediated
                devices, and names of vDPA's ("vhost-vdpa-0")
    iothreads   IOThread → disks ("nvme0n1" or a PCI address) that it serves
    owned       what the owner wrote about places
    manager     "OpenStack Nova", "oVirt", "KubeVirt": they place it themselves; else ""
    wishes      options from the guest's own metadata
    tagged      our tag's attributes, see PLACEMENT_NAMESPACE
    locked      its memory stays in RAM: <locked/>
    protected   SEV, TDX and the like: its pages cannot be moved
    device_held a mediated or vDPA device reads and writes its memory, so that no page moves
    notes       what was not understood, and limits of its machine type
    resident    node → KiB of its memory there now; empty for one that does not run
    partition   its control group, as <resource><partition> names it
    """

    name: str
    uuid: str
    type: str = "kvm"
    arch: str = ""
    machine: str = ""
    vcpus: int = 1
    online: tuple[int, ...] = (0,)
    topology: CpuTopology | None = None
    cells: tuple[Cell, ...] = ()
    memory: int = 0
    max_memory: int = 0
    ballooned: int = 0
    huge_pages: tuple[HugePages, ...] = ()
    memory_devices: tuple[MemoryDevice, ...] = ()
    devices: tuple[str, ...] = ()
    iothreads: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    owned: UserPins = field(default_factory=UserPins)
    manager: str = ""
    wishes: Mapping[str, str] = field(default_factory=dict)
    tagged: Mapping[str, str] = field(default_factory=dict)
    locked: bool = False
    protected: bool = False
    device_held: bool = False
    shares_pages: bool = True
    notes: tuple[str, ...] = ()
    resident: Mapping[int, int] = field(default_factory=dict)
    partition: str = "/machine"

    @property
    def threads(self) -> int:
        """vCPUs that the guest takes for threads of one core."""
        return self.topology.threads if self.topology else 1

    @property
    def die(self) -> int:
        """vCPUs of one of its sockets, or of their dies or clusters, for each of which it takes a
        cache of its own; 0 where it has only one, or a core each."""
        shape = self.topology
        if shape is None or shape.sockets == shape.dies == shape.clusters == 1:
            return 0
        return shape.cores * shape.threads if shape.cores > 1 else 0

    @cached_property
    def key(self) -> str:
        """What identifies it: the UUID, or the name where the XML has none."""
        return self.uuid or self.name

    @property
    def pluggable(self) -> bool:
        """Whether it can have more vCPUs than it has now."""
        return len(self.online) < self.vcpus

    @property
    def tied(self) -> bool:
        """Whether something of it has its place on the host: devices, threads that are pinned."""
        return bool(self.devices or self.owned.emulator or self.owned.iothreads)

    @property
    def movable(self) -> bool:
        """Whether its pages can move: none huge, locked, encrypted or held by a device."""
        stays = self.huge_pages or self.locked or self.protected
        return not (stays or self.devices or self.device_held)
