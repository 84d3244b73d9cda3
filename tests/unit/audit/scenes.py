# SPDX-License-Identifier: GPL-2.0-or-later
"""Tiny hosts and guests that rules are asked about: a good one, and what a case changes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuned_virt.audit.scene import AuditedGuest, Scene
from tuned_virt.frozen_dataclasses import dataclass, field, replace
from tuned_virt.model.guest import read_whole
from tuned_virt.model.host_facts import (
    CpuFrequency,
    Fact,
    HostFacts,
    KsmSettings,
    NetworkLink,
)
from tuned_virt.model.topology import CpuDetail, Host, NumaNode

GIB = 1 << 20

DISK = """<disk type='file' device='disk'>
<driver name='qemu' type='raw' cache='none' io='native' discard='unmap' iothread='1'/>
<source file='/var/lib/libvirt/images/vm1.img'/><target dev='vda' bus='virtio'/></disk>"""

NIC = """<interface type='network'><mac address='52:54:00:00:00:01'/>
<source network='default'/><model type='virtio'/></interface>"""

AGENT = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"

OS = """<metadata><libosinfo:libosinfo xmlns:libosinfo='http://libosinfo.org/xmlns/libvirt/domain/1.0'>
<libosinfo:os id='http://fedoraproject.org/fedora/40'/></libosinfo:libosinfo></metadata>"""


def guest(
    *,
    name: str = "vm1",
    type: str = "kvm",
    arch: str = "x86_64",
    machine: str = "pc-q35-9.2",
    vcpus: int = 2,
    vcpu: str = "",
    gib: float = 2,
    cpu: str = "<cpu mode='host-model'/>",
    disks: str = DISK,
    nics: str = NIC,
    devices: str = AGENT,
    metadata: str = OS,
    body: str = "",
) -> str:
    """A guest that no rule has anything against, but for what is given."""
    return f"""<domain type='{type}'><name>{name}</name>{metadata}
<memory unit='KiB'>{int(gib * GIB)}</memory><vcpu {vcpu}>{vcpus}</vcpu><iothreads>1</iothreads>
<os><type arch='{arch}' machine='{machine}'>hvm</type></os>{cpu}{body}
<devices>{disks}{nics}{devices}</devices></domain>"""


def pinned(*cpus: str, emulator: str = "", more: str = "") -> str:
    """<cputune> with one <vcpupin> for each set."""
    pins = "".join(f"<vcpupin vcpu='{at}' cpuset='{one}'/>" for at, one in enumerate(cpus))
    pins += f"<emulatorpin cpuset='{emulator}'/>" if emulator else ""
    return f"<cputune>{pins}{more}</cputune>"


def numatune(mode: str, nodes: str) -> str:
    return f"<numatune><memory mode='{mode}' nodeset='{nodes}'/></numatune>"


def host(
    nodes: int = 1,
    cpus: int = 8,
    gib: int = 16,
    threads: int = 1,
    pages: Mapping[int, int] | None = None,
    **more: Any,
) -> Host:
    """Nodes of so many CPUs and so much memory each; siblings are neighbours."""
    found = []
    details = {}
    for node in range(nodes):
        own = frozenset(range(node * cpus, (node + 1) * cpus))
        found.append(NumaNode(node, own, gib * GIB, {}, pages or {4: 1, 2048: 0, GIB: 0}))
        for cpu in own:
            first = cpu - cpu % threads
            siblings = frozenset(range(first, first + threads))
            details[cpu] = CpuDetail(cpu, node, node, 0, first, siblings)
    return Host(tuple(found), details, arch="x86_64", **more)


FACTS: dict[str, Any] = {
    "kvm": True,
    "numad": True,
    "swap": 4 * GIB,
    "thp": "always",
    "ksm": KsmSettings(run=False, across_nodes=False),
    "mounted": frozenset({2048, GIB}),
    "vhost_net": True,
    "nested": True,
    "halt_poll_ns": 200_000,
    "numa_balancing": False,
    "arp_filter": False,
    "subnets": {"192.0.2.0/24": ("br0",)},
    "links": {"br0": NetworkLink(1500), "eth0": NetworkLink(1500, "br0")},
    "frequency": CpuFrequency(frozenset({"performance"}), "intel_pstate"),
    "schedulers": {"sda": "bfq"},
    "backing": {},
    "idle_states": {"C1": 2, "C6": 133},
    "profiles": ("virtual-host-plus",),
}
"""Of a host that no rule has anything against."""


IN_GUEST = Fact("virtual-guest", "")


@dataclass(frozen=True)
class MadeScene(Scene):
    """A scene, and the documents that its guests are read from."""

    documents: tuple[str, ...] = ()


def scene(*guests: str, on: Host | None = None, **facts: Any) -> MadeScene:
    """Running guests on a host; facts are changed by name."""
    known = {name: Fact(value, "") for name, value in {**FACTS, **facts}.items()}
    audited = [AuditedGuest(*read_whole(one), profile=IN_GUEST) for one in guests]
    return MadeScene(on or host(), HostFacts(**known), tuple(audited), documents=guests)


def told_by_agent(made: MadeScene, profile: str) -> MadeScene:
    """The same, and TuneD's profile inside each guest is known."""
    fact = Fact(profile, "")
    return replace(made, guests=tuple(replace(one, profile=fact) for one in made.guests))


@dataclass(frozen=True)
class Case:
    """A scene in which a rule finds this, with this command; and one in which it finds nothing.

    also   more scenes in which it finds something, and what
    """

    fails: MadeScene
    found: str
    passes: Scene
    command: str = ""
    also: Mapping[str, Scene] = field(default_factory=dict)
    fine: tuple[Scene, ...] = ()
