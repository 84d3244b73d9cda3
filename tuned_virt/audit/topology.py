# SPDX-License-Identifier: GPL-2.0-or-later
"""Sockets, cores and threads that the guest sees: chapter 3.3.3."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tuned_virt.audit.rule import ByProfile, Found, Severity, guest_rule
from tuned_virt.audit.scene import AuditedGuest, Scene
from tuned_virt.model.guest import CpuTopology

FORMAT = "https://libvirt.org/formatdomain.html#cpu-model-and-topology"
FLAT = "virt-xml {guest} --edit --vcpus maxvcpus={vcpus},sockets={vcpus},cores=1,threads=1"

WINDOWS_DESKTOP = re.compile(r"http://microsoft\.com/win/(xp|vista|7|8|8\.1|10|11)")
DESKTOP_SOCKETS = 2
"""Most that Windows Pro, Education and Enterprise use; Home one, Pro for Workstations four."""

X86_THREADS = 2
"""Most threads of a core that an x86 CPU has."""


def _size(shape: CpuTopology) -> int:
    return shape.sockets * shape.dies * shape.clusters * shape.cores * shape.threads


@guest_rule(
    "topology-mismatch",
    Severity.ERROR,
    checks="a topology whose sockets, cores and threads do not make the number of vCPUs",
    advice="sockets × dies × clusters × cores × threads equal to the number of vCPUs",
    why="libvirt refuses to start it, or the guest sees CPUs that are not there",
    guide="3.3.3",
    page=FORMAT,
    mends=FLAT,
)
def mismatch(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """By the most vCPUs that it can have."""
    shape, vcpus = one.guest.topology, one.guest.vcpus
    if shape and _size(shape) != vcpus:
        yield Found(f"the topology has {_size(shape)} CPUs, the guest {vcpus}", {"vcpus": vcpus})


@guest_rule(
    "topology-windows-sockets",
    Severity.WARNING,
    checks="a desktop Windows with more sockets than its licence uses",
    advice="one socket with as many cores as there are vCPUs",
    why="most desktop editions use one or two sockets: vCPUs in the others are never used",
    guide="3.3.3",
    page="https://blog.poly.nomial.co.uk/2022-04-07-cpu-socket-and-core-count-limits-in-windows-10-and-how-to-remove-them.html",
    mends="virt-xml {guest} --edit --vcpus maxvcpus={vcpus},sockets=1,cores={vcpus},threads=1",
)
def windows_sockets(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """libvirt gives each vCPU its own socket where no topology is written."""
    sockets = one.guest.topology.sockets if one.guest.topology else one.guest.vcpus
    if WINDOWS_DESKTOP.fullmatch(one.hardware.os_id) and sockets > DESKTOP_SOCKETS:
        yield Found(f"{sockets} sockets", {"vcpus": one.guest.vcpus})


@guest_rule(
    "topology-threads",
    Severity.WARNING,
    checks="a guest that takes vCPUs for threads of one core which are not",
    advice="threads=1, or pin the vCPUs of each core to siblings of one core of the host",
    why="the guest's scheduler keeps work off what it takes for the sibling of a busy core",
    guide="3.3.3",
    page=FORMAT,
    mends="virt-xml {guest} --edit --vcpus maxvcpus={vcpus},sockets={cores},cores=1,threads=1",
    profile=ByProfile("vm_policy=dedicated"),
)
def threads(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Whatever the host has: only what x86 never has can be told without one."""
    shape = one.guest.topology
    if shape is None or shape.threads == 1:
        return
    values = {"vcpus": one.guest.vcpus, "cores": one.guest.vcpus}
    if one.is_x86 and shape.threads > X86_THREADS:
        yield Found(f"{shape.threads} threads per core, which no x86 CPU has", values)
        return
    most = max(len(cpu.siblings) for cpu in scene.topology.cpus.values())
    if shape.threads > most:
        yield Found(f"{shape.threads} threads per core on a host whose cores have {most}", values)
    elif not one.placed and not _on_siblings(one, scene, shape.threads):
        yield Found(f"{shape.threads} threads per core, not pinned to siblings", values)


def _on_siblings(one: AuditedGuest, scene: Scene, count: int) -> bool:
    """Whether the vCPUs of each core may only run on siblings of one core of the host."""
    pins, cpus = one.pins.vcpus, scene.topology.cpus
    for first in range(0, one.guest.vcpus, count):
        sets = [pins.get(vcpu, frozenset()) for vcpu in range(first, first + count)]
        allowed = frozenset().union(*sets)
        cores = {cpus[cpu].siblings for cpu in allowed if cpu in cpus}
        if not all(sets) or len(cores) != 1:
            return False
    return True


@guest_rule(
    "topology-crosses-cells",
    Severity.WARNING,
    checks="a core or socket of the guest whose vCPUs are in several of its vNUMA cells",
    advice="as many sockets as vNUMA cells, each cell with the vCPUs of its sockets",
    why="the guest's kernel finds CPUs that share caches on different nodes, and ignores the cells",
    guide="9.3.3",
    page="https://libvirt.org/formatdomain.html#guest-numa-topology",
    mends="virt-xml {guest} --edit --vcpus maxvcpus={vcpus},sockets={vcpus},cores=1,threads=1",
)
def crosses_cells(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """vCPUs are numbered socket by socket."""
    shape, cells = one.guest.topology, one.guest.cells
    if shape is None or len(cells) < 2:
        return
    size = shape.cores * shape.threads * shape.clusters
    home = {vcpu: cell.id for cell in cells for vcpu in cell.vcpus}
    for first in range(0, one.guest.vcpus, size):
        vcpus = range(first, min(first + size, one.guest.vcpus))
        inside = sorted({home[vcpu] for vcpu in vcpus if vcpu in home})
        if len(inside) > 1:
            named = f"vCPUs {first}-{vcpus[-1]} are one socket or die"
            yield Found(
                f"{named}, and in cells {', '.join(map(str, inside))}", {"vcpus": one.guest.vcpus}
            )
            return
