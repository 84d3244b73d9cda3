# SPDX-License-Identifier: GPL-2.0-or-later
"""Pins of vCPUs and of the emulator: chapters 3.3.4 and 9.3."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from tuned_virt.audit.rule import ByProfile, Found, Severity, guest_rule
from tuned_virt.audit.scene import AuditedGuest, Scene
from tuned_virt.kernel import cpuset
from tuned_virt.model.topology import NumaNode

CPUTUNE = "https://libvirt.org/formatdomain.html#cpu-tuning"
ISOLCPUS = "https://docs.kernel.org/admin-guide/kernel-parameters.html"
PLACES = ByProfile("vm_policy=node", by_itself=True)
TO_NODE = "for vcpu in $(seq 0 {last}); do virsh vcpupin {guest} $vcpu {cpus} --config; done"
"""Overwrites the pins of all vCPUs."""


def to_cpus(one: AuditedGuest, cpus: Collection[int]) -> dict[str, object]:
    """What TO_NODE is filled in with."""
    return {"last": one.guest.vcpus - 1, "cpus": cpuset.text(cpus)}


@guest_rule(
    "pin-missing",
    Severity.INFO,
    checks="a guest that nothing keeps on one NUMA node",
    advice="place it on one node, with its memory",
    why="its threads and its memory drift apart, and each access to another node is slower",
    guide="9.3.1",
    page="https://docs.kernel.org/admin-guide/mm/numa_memory_policy.html",
    mends="tuned-adm profile virtual-host-plus",
    profile=PLACES,
)
def missing(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Only where there are several nodes, and our profile does not place it."""
    pins = one.pins
    if pins.vcpus or pins.automatic or pins.nodes or pins.memnodes or one.placed:
        return
    if scene.several_nodes and not _placing(scene):
        nodes = sum(bool(node.cpus) for node in scene.topology.nodes)
        yield Found(f"it may run on all {nodes} nodes")


def _placing(scene: Scene) -> bool:
    return "virtual-host-plus" in (scene.facts.profiles.value or ())


@guest_rule(
    "pin-partial",
    Severity.WARNING,
    checks="a guest with some vCPUs pinned and others not",
    advice="pin every vCPU, or none",
    why="vCPUs that are not pinned run on the CPUs of those that are, and on other nodes",
    guide="9.3.3",
    page=CPUTUNE,
    mends=TO_NODE,
)
def partial(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """<vcpu cpuset> pins all."""
    without = [vcpu for vcpu in range(one.guest.vcpus) if vcpu not in one.pins.vcpus]
    if one.pins.vcpus and without:
        told = f"vCPUs {cpuset.text(without)} of {one.guest.vcpus} are not pinned"
        yield Found(told, to_cpus(one, one.allowed))


@guest_rule(
    "pin-fewer-cpus",
    Severity.WARNING,
    checks="a guest whose vCPUs are pinned to fewer CPUs than it has vCPUs",
    advice="at least as many CPUs as vCPUs, or fewer vCPUs",
    why="its vCPUs wait for each other, also while the host is idle",
    guide="3.3.4",
    page=CPUTUNE,
    mends=TO_NODE,
)
def fewer_cpus(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """By the vCPUs that are online."""
    online, allowed = len(one.guest.online), one.allowed
    if one.pins.vcpus.keys() >= set(one.guest.online) and len(allowed) < online:
        node = _fitting(one, scene) if scene.host else None
        values = to_cpus(one, node.cpus) if node else None
        yield Found(f"{online} vCPUs on CPUs {cpuset.text(allowed)}", values)


@guest_rule(
    "pin-shared",
    Severity.WARNING,
    checks="vCPUs that are pinned to one and the same CPU",
    advice="each dedicated CPU for one vCPU",
    why="only one of them can run at a time, and none can move away",
    guide="3.3.4",
    page=CPUTUNE,
    mends="virsh vcpupin {guest} {vcpu} {free} --config",
    profile=ByProfile("vm_policy=dedicated"),
)
def shared(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Only pins to single CPUs; said at the guest whose vCPU comes later."""
    for vcpu, cpus in sorted(one.pins.vcpus.items()):
        if len(cpus) == 1 and vcpu < one.guest.vcpus:
            [cpu] = cpus
            holder, held = scene.holders[cpu]
            if holder is not one or held != vcpu:
                told = f"vCPU {vcpu} and vCPU {held} of {holder.name} share CPU {cpu}"
                yield Found(told, _free(scene, cpu, vcpu))


def _free(scene: Scene, cpu: int, vcpu: int) -> dict[str, object] | None:
    """A CPU of the same node that no guest is pinned to; None where there is none."""
    if scene.host is None or cpu not in scene.host.cpus:
        return None
    node = scene.host.by_id[scene.host.cpus[cpu].node]
    left = sorted((node.cpus & scene.host.cpus.keys()) - scene.pinned)
    return {"vcpu": vcpu, "free": left[-1]} if left else None


@guest_rule(
    "pin-absent-cpus",
    Severity.ERROR,
    checks="pins to CPUs that the host does not have, or that are offline",
    advice="only CPUs that are online",
    why="libvirt refuses to start it, or ignores the pin",
    guide="3.3.4",
    page=CPUTUNE,
    mends="virt-xml {guest} --edit --xml xpath.delete=./cputune"
    " && virt-xml {guest} --edit --vcpus vcpu.cpuset=",
)
def absent_cpus(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Of vCPUs, emulator and IOThreads."""
    pins = one.pins
    sets = [*pins.vcpus.values(), *pins.iothreads.values(), pins.emulator or frozenset()]
    named = frozenset().union(*sets)
    if named and (gone := named - scene.topology.cpus.keys()):
        yield Found(f"it is pinned to CPUs {cpuset.text(gone)}, which are not online here")


@guest_rule(
    "pin-over-nodes",
    Severity.WARNING,
    checks="a guest that is pinned across NUMA nodes although it fits one",
    advice="CPUs and memory of one node",
    why="its memory is on another node for a part of its vCPUs",
    guide="9.3.1",
    page="https://docs.kernel.org/admin-guide/mm/numa_memory_policy.html",
    mends=TO_NODE,
    profile=ByProfile("vm_policy=node, without pins in the guest's XML"),
)
def over_nodes(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """A guest with vNUMA cells is meant to span them."""
    if not one.pins.vcpus or len(one.guest.cells) > 1:
        return
    nodes = scene.nodes_of(one.allowed)
    fitting = _fitting(one, scene)
    if len(nodes) > 1 and fitting:
        values = to_cpus(one, fitting.cpus)
        yield Found(f"its pins span nodes {cpuset.text(nodes)}; node {fitting.id} would do", values)


def _fitting(one: AuditedGuest, scene: Scene) -> NumaNode | None:
    """The first node, of those it is pinned to first, that has enough CPUs and memory."""
    near = scene.nodes_of(one.allowed)
    for node in sorted(scene.topology.nodes, key=lambda node: (node.id not in near, node.id)):
        enough = len(node.cpus & scene.topology.cpus.keys()) >= len(one.guest.online)
        if enough and (node.memory == 0 or node.memory >= one.guest.memory):
            return node
    return None


@guest_rule(
    "pin-emulator-on-vcpus",
    Severity.WARNING,
    checks="emulator threads on the CPUs that the guest's own vCPUs are dedicated to",
    advice="a CPU of the same node that no vCPU is dedicated to",
    why="QEMU's main loop interrupts vCPUs that were given CPUs for themselves",
    guide="9.3.4",
    page=CPUTUNE,
    mends="virsh emulatorpin {guest} {free} --config",
    profile=ByProfile("vm_policy=dedicated"),
)
def emulator_on_vcpus(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Where vCPUs float it does no harm."""
    emulator = one.pins.emulator
    if emulator and one.dedicated and emulator & one.allowed:
        both = cpuset.text(emulator & one.allowed)
        yield Found(f"the emulator may run on CPUs {both} of its vCPUs", _emulator(one, scene))


@guest_rule(
    "pin-emulator-floating",
    Severity.INFO,
    checks="a guest with dedicated CPUs whose emulator threads may run on all of them",
    advice="pin the emulator to a CPU of the same node that no vCPU is dedicated to",
    why="without <emulatorpin> QEMU's threads run wherever the scheduler puts them",
    guide="9.3.4",
    page=CPUTUNE,
    mends="virsh emulatorpin {guest} {free} --config",
    profile=ByProfile("vm_policy=dedicated"),
)
def emulator_floating(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Only of guests whose owner has dedicated CPUs to them."""
    if one.dedicated and one.pins.emulator is None and not one.placed:
        yield Found("its vCPUs are dedicated, its emulator is not pinned", _emulator(one, scene))


def _emulator(one: AuditedGuest, scene: Scene) -> dict[str, object] | None:
    found = _free(scene, min(one.allowed), 0) if scene.host else None
    return {"free": found["free"]} if found else None


@guest_rule(
    "pin-isolated",
    Severity.WARNING,
    checks="a vCPU that may run on several isolated CPUs",
    advice="one isolated CPU per vCPU",
    why="the scheduler does not balance isolated CPUs: such vCPUs stay together on one of them",
    guide="3.3.4",
    page=ISOLCPUS,
    mends="virsh vcpupin {guest} {vcpu} {cpu} --config",
)
def isolated(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """isolcpus= of the kernel's command line."""
    if not one.pins.vcpus:
        return
    alone = scene.topology.isolated
    used: set[int] = set()
    for vcpu, cpus in sorted(one.pins.vcpus.items()):
        if len(cpus & alone) > 1:
            cpu = min((cpus & alone) - used, default=min(cpus & alone))
            used.add(cpu)
            told = f"vCPU {vcpu} may run on isolated CPUs {cpuset.text(cpus & alone)}"
            yield Found(told, {"vcpu": vcpu, "cpu": cpu})


@guest_rule(
    "pin-auto-without-numad",
    Severity.ERROR,
    checks="placement='auto' on a host without numad",
    advice="install tuned-virt-plus-numad or numad, or placement='static'",
    why="libvirt asks numad for the nodes when the guest starts, and refuses to start it without",
    guide="9.3.2",
    page="https://libvirt.org/formatdomain.html#cpu-allocation",
    mends="virt-xml {guest} --edit --xml xpath.delete=./numatune --xml ./vcpu/@placement=static",
    profile=PLACES,
)
def auto_without_numad(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Of <vcpu> or <numatune>."""
    if one.pins.automatic and not scene.facts.numad.get():
        yield Found("its placement is auto, and numad is not installed")
