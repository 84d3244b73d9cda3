# SPDX-License-Identifier: GPL-2.0-or-later
"""Running guests as `tuned-virt guests` has them: read in one pass over /proc, hurt by hurt."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum

from tuned_virt.cli import plan_text
from tuned_virt.cli.vcpu_waits import VcpuWaits
from tuned_virt.core.options import SYSTEM
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel import cpuset, numa_maps
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.model import topology
from tuned_virt.model.guest import printable, qemu_process, qemu_threads
from tuned_virt.model.guest.qemu_process import QemuProcess
from tuned_virt.model.guest.qemu_threads import QemuThreads
from tuned_virt.model.pins import EMULATOR, Target
from tuned_virt.placement import PlacementKind
from tuned_virt.plugins.vm_pinning import held_placements
from tuned_virt.plugins.vm_pinning.held_placements import HeldPlacement

WAITS = 5.0
"""Percent of time that a vCPU waits for a CPU, from which it hurts: 50 ms of each second."""

LOCAL = 100 * plan_text.SETTLED
"""Percent of memory on its nodes, below which it hurts."""


class GuestProblem(str, Enum):
    """What hurts a guest most, worst first."""

    UNGRANTED = "not granted"
    UNPLACED = "not placed"
    DRIFT = "drift"
    DELAY = "delay"
    REMOTE = "remote memory"
    UNREADABLE = "cannot be read"
    NONE = ""


@dataclass(frozen=True)
class SeenGuest:
    """A guest's process, what vm_pinning holds of it on which libvirt, and its threads.

    error  why its threads cannot be read, "" where they can
    """

    process: QemuProcess
    held: HeldPlacement | None
    uri: str
    threads: QemuThreads
    error: str = ""

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    @property
    def name(self) -> str:
        """As libvirt has it; else as its process says, or its number."""
        return printable(self.held.name) if self.held else self.process.name or str(self.pid)

    @property
    def uuid(self) -> str:
        """As its process says; "" where it does not."""
        return self.process.uuid


@dataclass(frozen=True)
class NodePages:
    """Memory on a node in pages of one size."""

    node: int
    page_kib: int
    mib: int


@dataclass(frozen=True)
class GuestRow:
    """One guest; None is what is not there, and an error says what cannot be read.

    vcpus     where each vCPU may run now
    owner     who decides where it is: tuned-virt, its owner, or nobody
    local     percent of its memory on its nodes, or on those of its vCPUs; by_node: node → MiB
    drift     what is not where it was put, in words
    ungranted what was requested and is not so, such as "policy=dedicated"
    delay_ms  how long its vCPUs together waited for a CPU in interval_s seconds
    delay_percent  the part of that time which the vCPU that waited most did
    mend      commands that mend what hurts
    """

    guest: str
    uuid: str
    pid: int
    kind: str
    nodes: tuple[int, ...]
    vcpus: Mapping[int, str]
    owner: str
    why: str
    local: float | None
    by_node: Mapping[int, int]
    drift: tuple[str, ...]
    delay_ms: float | None
    ungranted: str = ""
    memory_error: str = ""
    threads_error: str = ""
    interval_s: float | None = None
    delay_percent: float | None = None
    delay_error: str = ""
    mend: tuple[str, ...] = ()
    pages: tuple[NodePages, ...] = ()


def find(fs: KernelFS) -> list[SeenGuest]:
    """Each guest's process; those that end meanwhile are left out."""
    held = {
        one.pid: (uri, one)
        for uri, some in held_placements.everything().items()
        for one in some
        if one.pid
    }
    processes = qemu_process.QemuProcesses(fs)
    guests = processes.guests(time.monotonic())
    processes.close()
    seen = (_seen(fs, guest, *held.get(guest.pid, ("", None))) for guest in guests)
    return [one for one in seen if one.threads or one.error]


def _seen(fs: KernelFS, guest: QemuProcess, uri: str, held: HeldPlacement | None) -> SeenGuest:
    try:
        return SeenGuest(guest, held, uri, qemu_threads.read(fs, guest.pid))
    except KernelFileError as error:
        return SeenGuest(guest, held, uri, {}, str(error))


def rows(
    fs: KernelFS, guests: Sequence[SeenGuest], before: VcpuWaits, now: VcpuWaits
) -> list[GuestRow]:
    """A row for each guest, with its delay between two moments; what hurts most is first."""
    nodes = {one.id: cpuset.parse(one.cpus) for one in topology.nodes(fs)}
    found = (_row(fs, one, nodes, before, now) for one in guests)
    return sorted((row for row in found if row is not None), key=_order)


def _row(
    fs: KernelFS,
    seen: SeenGuest,
    nodes: Mapping[int, frozenset[int]],
    before: VcpuWaits,
    now: VcpuWaits,
) -> GuestRow | None:
    """None of one that has ended meanwhile."""
    held = seen.held
    affinity, threads_error = affinity_of(fs, seen)
    if not any(affinity.values()) and not threads_error:
        return None
    vcpus = qemu_threads.pins(affinity).vcpus
    own = held.placement.nodes if held else ()
    areas, memory_error = _areas_of(fs, seen.pid)
    by_node = numa_maps.by_node(areas)
    near = _own_nodes(held) or _nodes_of(vcpus, nodes)
    share = numa_maps.share(by_node, near) if near else None
    waited, delay_error = now.since(before, seen.pid, seen.threads)
    seconds = now.when - before.when
    return GuestRow(
        guest=seen.name,
        uuid=seen.uuid,
        pid=seen.pid,
        kind=held.placement.kind.value if held else PlacementKind.UNPLACED.value,
        nodes=own,
        vcpus=vcpus,
        owner=_owner(held),
        why=printable(held.placement.why) if held else "not managed by vm_pinning",
        local=None if share is None else round(100 * share, 1),
        by_node={node: kib >> 10 for node, kib in by_node.items()},
        drift=_drift(affinity, held) if held else (),
        delay_ms=round(sum(waited.values()) / 1e6, 1) if waited else None,
        ungranted=held.ungranted if held else "",
        memory_error=memory_error,
        threads_error=threads_error,
        interval_s=round(seconds, 1) if waited else None,
        delay_percent=percent(max(waited.values()), seconds) if waited else None,
        delay_error=delay_error,
        mend=(*_pin_commands(affinity, seen), *_page_commands(seen, areas, near)),
        pages=tuple(_pages(areas)),
    )


def percent(waited: int, seconds: float) -> float:
    """Of nanoseconds the part of so many seconds."""
    return round(min(waited / (seconds * 1e7), 100.0), 1)


def affinity_of(fs: KernelFS, seen: SeenGuest) -> tuple[qemu_threads.Affinity, str]:
    """Where its threads may run; and why that cannot be told, "" where it can."""
    try:
        return qemu_threads.affinity(fs, seen.pid, seen.threads), seen.error
    except KernelFileError as error:
        return {}, str(error)


def _areas_of(fs: KernelFS, pid: int) -> tuple[list[numa_maps.Area], str]:
    """A guest's memory; and why the location of it cannot be told, "" where it can."""
    try:
        return numa_maps.read(fs, pid), ""
    except KernelFileError as error:
        return [], str(error)


def _pages(areas: Iterable[numa_maps.Area]) -> Iterator[NodePages]:
    """By node and size of page."""
    kib: Counter[tuple[int, int]] = Counter()
    for area in areas:
        kib.update({(node, area.page): some for node, some in area.nodes.items()})
    for (node, page), some in sorted(kib.items()):
        yield NodePages(node, page, some >> 10)


def _own_nodes(held: HeldPlacement | None) -> frozenset[int]:
    """Nodes on which a guest's memory should be, where its placement says."""
    if held is None:
        return frozenset()
    memory = held.placement.memory
    return cpuset.parse(memory.nodeset) if memory else frozenset(held.placement.nodes)


def _nodes_of(vcpus: Mapping[int, str], nodes: Mapping[int, frozenset[int]]) -> frozenset[int]:
    cpus = frozenset[int]().union(*map(cpuset.parse, vcpus.values()))
    return frozenset(node for node, some in nodes.items() if some & cpus)


def _owner(held: HeldPlacement | None) -> str:
    if held is not None and held.placed:
        return "tuned-virt"
    owned = held is not None and held.placement.kind is PlacementKind.OWNER
    return "its owner" if owned else "nobody"


def _drift(now: qemu_threads.Affinity, held: HeldPlacement) -> tuple[str, ...]:
    if held.failed:
        return tuple(f"{what}: {why}" for what, why in held.failed.items())
    return tuple(
        f"{target if target != EMULATOR else f'emulator thread {thread}'} on {cpus}, not {there}"
        for target, thread, cpus, there in _elsewhere(now, held)
    )


def _elsewhere(
    now: qemu_threads.Affinity, held: HeldPlacement
) -> Iterator[tuple[Target, int, str, str]]:
    """Threads that are not where they were put: where they may run, and where they should."""
    wanted = held.placement.pins() if held.placed else {}
    for target, some in now.items():
        for thread, cpus in some.items():
            there = wanted.get(target, cpus)
            if there != cpus:
                yield target, thread, cpus, there


def _pin_commands(now: qemu_threads.Affinity, seen: SeenGuest) -> list[str]:
    """What pins threads again that are elsewhere."""
    if seen.held is None:
        return []
    changes = {
        target: plan_text.GuestChange(
            target.part.value, None if target == EMULATOR else target.number, cpus, there
        )
        for target, _, cpus, there in _elsewhere(now, seen.held)
    }
    typed = plan_text.commands(seen.held.placement, changes.values())
    virsh = "virsh" if seen.uri == SYSTEM else f"virsh -c {seen.uri}"
    return [line.replace("virsh", virsh, 1) for line in typed]


def _page_commands(
    seen: SeenGuest, areas: list[numa_maps.Area], near: frozenset[int]
) -> Iterator[str]:
    """What moves pages that are on other nodes; huge pages stay, and what its owner has placed."""
    share = numa_maps.share(numa_maps.by_node(areas), near)
    movable = numa_maps.by_node([area for area in areas if not area.huge])
    away = [node for node, kib in movable.items() if node not in near and kib]
    owned = seen.held is not None and seen.held.placement.kind is PlacementKind.OWNER
    if near and away and not owned and share is not None and 100 * share < LOCAL:
        yield f"migratepages {seen.pid} {cpuset.text(away)} {cpuset.text(near)}"


def competing(row: GuestRow, rows: Sequence[GuestRow]) -> tuple[int, int]:
    """Of other guests those whose vCPUs may run on a guest's CPUs, and how many vCPUs."""
    own = frozenset[int]().union(*map(cpuset.parse, row.vcpus.values()))
    sets = {cpus for one in rows for cpus in one.vcpus.values()}
    there = {cpus for cpus in sets if cpuset.parse(cpus) & own}
    others = (one for one in rows if one.pid != row.pid)
    found = [sum(cpus in there for cpus in one.vcpus.values()) for one in others]
    return sum(1 for vcpus in found if vcpus), sum(found)


def problem(row: GuestRow) -> GuestProblem:
    """What hurts a guest most."""
    hurts = {
        GuestProblem.UNGRANTED: bool(row.ungranted),
        GuestProblem.UNPLACED: row.owner == "nobody" and _waits(row),
        GuestProblem.DRIFT: bool(row.drift),
        GuestProblem.DELAY: _waits(row),
        GuestProblem.REMOTE: row.local is not None and row.local < LOCAL,
        GuestProblem.UNREADABLE: bool(row.threads_error or row.memory_error or row.delay_error),
    }
    return next((one for one, so in hurts.items() if so), GuestProblem.NONE)


def _waits(row: GuestRow) -> bool:
    return row.delay_percent is not None and row.delay_percent >= WAITS


def _order(row: GuestRow) -> tuple[object, ...]:
    worst = list(GuestProblem).index(problem(row))
    local = 100.0 if row.local is None else row.local
    return worst, -(row.delay_percent or 0.0), local, row.guest, row.pid
