# SPDX-License-Identifier: GPL-2.0-or-later
"""NICs, vhost, queues, MTU, ARP: chapter 5."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tuned_virt.audit.rule import ByProfile, Found, Severity, guest_rule, host_rule
from tuned_virt.audit.scene import AuditedGuest, Scene
from tuned_virt.model.guest import VirtualNic, printable
from tuned_virt.model.host_facts import NetworkLink

NICS = "https://libvirt.org/formatdomain.html#network-interfaces"
SYSCTL = "https://docs.kernel.org/networking/ip-sysctl.html"
EDIT = "virt-xml {guest} --edit {which} --network "

VIRTIO = ("virtio", "virtio-transitional", "virtio-non-transitional")
WITHOUT_MODEL = ("hostdev", "vdpa")
"""Types whose NIC is a device of the host."""
TAPPED = ("network", "bridge", "ethernet", "direct")
"""Types whose data path vhost_net can take over."""

MANY_VCPUS = 4
"""From so many vCPUs on one queue is worth a word."""
USUAL_MTU = 1500


def _which(one: AuditedGuest, nic: VirtualNic) -> str:
    """How virt-xml finds it: by MAC, or by place."""
    return f"mac={nic.mac}" if nic.mac else str(one.hardware.nics.index(nic) + 1)


def _named(nic: VirtualNic) -> str:
    return f"NIC {nic.mac}" if nic.mac else "a NIC"


@guest_rule(
    "nic-model",
    Severity.WARNING,
    checks="an emulated NIC (e1000, rtl8139 or no model) where virtio serves",
    advice="virtio; in Windows install the virtio driver first",
    why="each packet takes exits to QEMU, and vhost_net serves virtio only",
    guide="5.3",
    page="https://wiki.libvirt.org/Virtio.html",
    mends=EDIT + "model.type=virtio",
)
def model(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """libvirt takes rtl8139 or e1000 on x86 where no model is written, virtio elsewhere."""
    for nic in one.hardware.nics:
        emulated = nic.model not in VIRTIO if nic.model else one.is_x86
        if emulated and nic.type not in WITHOUT_MODEL:
            name = printable(nic.model[:20]) or "not set, so rtl8139 or e1000"
            yield Found(f"{_named(nic)}: its model is {name}", {"which": _which(one, nic)})


@guest_rule(
    "nic-vhost-off",
    Severity.WARNING,
    checks="a virtio NIC that QEMU serves although vhost_net could",
    advice="without <driver name='qemu'>",
    why="packets go through QEMU's main loop instead of the kernel",
    guide="5.3",
    page=NICS,
    mends=EDIT + "driver.name=vhost",
)
def vhost_off(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Written by the owner."""
    for nic in one.hardware.nics:
        if nic.driver == "qemu" and nic.model in VIRTIO and nic.type in TAPPED:
            yield Found(f"{_named(nic)} has driver qemu", {"which": _which(one, nic)})


@host_rule(
    "net-vhost-missing",
    Severity.WARNING,
    checks="guests with virtio NICs on a host without vhost_net",
    advice="the module vhost_net",
    why="QEMU then moves every packet itself, without a word",
    guide="5.3",
    page=NICS,
    mends="modprobe vhost_net",
    profile=ByProfile("load_modules=vhost_net", by_itself=True),
)
def vhost_missing(scene: Scene) -> Iterator[Found]:
    """By its device, /dev/vhost-net."""
    count = sum(
        nic.model in VIRTIO and nic.type in TAPPED
        for one in scene.running
        for nic in one.hardware.nics
    )
    if count and not scene.facts.vhost_net.get():
        yield Found(f"{count} virtio NICs, and /dev/vhost-net is missing")


@guest_rule(
    "nic-user",
    Severity.WARNING,
    checks="a NIC of type user, whose packets QEMU translates itself",
    advice="a bridge, or libvirt's network default",
    why="QEMU's user-mode network stack reaches a fraction of the speed, and takes no connections",
    guide="5.3",
    page=NICS,
    mends=EDIT + "network=default",
)
def user(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """passt, its successor, is of the same type."""
    for nic in one.hardware.nics:
        if nic.type == "user":
            yield Found(f"{_named(nic)} is of type user", {"which": _which(one, nic)})


@guest_rule(
    "nic-queues",
    Severity.INFO,
    checks="a virtio NIC with one queue for many vCPUs",
    advice="as many queues as vCPUs, up to 8; in the guest: ethtool -L eth0 combined N",
    why="one vhost thread and one vCPU handle all packets",
    guide="5.3",
    page=NICS,
    mends=EDIT + "driver.queues={queues}",
)
def queues(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """With vhost only."""
    vcpus = len(one.guest.online)
    for nic in one.hardware.nics:
        served = nic.model in VIRTIO and nic.type in TAPPED and nic.driver != "qemu"
        if served and vcpus >= MANY_VCPUS and nic.queues < 2:
            values = {"which": _which(one, nic), "queues": min(vcpus, 8)}
            yield Found(f"{_named(nic)} has one queue for {vcpus} vCPUs", values)


@guest_rule(
    "nic-queues-over-vcpus",
    Severity.INFO,
    checks="a virtio NIC with more queues than the guest has vCPUs",
    advice="as many queues as vCPUs",
    why="the guest uses one queue per vCPU, each other one is a vhost thread that waits",
    guide="5.3",
    page=NICS,
    mends=EDIT + "driver.queues={queues}",
)
def queues_over_vcpus(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """By the most vCPUs that it can have."""
    for nic in one.hardware.nics:
        if nic.queues > one.guest.vcpus:
            values = {"which": _which(one, nic), "queues": one.guest.vcpus}
            yield Found(f"{_named(nic)}: {nic.queues} queues, {one.guest.vcpus} vCPUs", values)


@host_rule(
    "net-one-network",
    Severity.INFO,
    checks="several guests whose traffic all goes through one network",
    advice="networks of their own for management, backup, migration and storage",
    why="a backup or a migration takes the bandwidth of everything else",
    guide="5.2",
    page="https://libvirt.org/formatnetwork.html",
)
def one_network(scene: Scene) -> Iterator[Found]:
    """By the bridge or network that NICs name."""
    by_guest = [{(nic.type, nic.source) for nic in one.hardware.nics} for one in scene.running]
    used = set().union(*by_guest)
    with_nics = sum(bool(names) for names in by_guest)
    if with_nics > 1 and len(used) == 1:
        [(kind, name)] = used
        yield Found(f"all {with_nics} guests use {kind} {printable(name)}".rstrip())


@guest_rule(
    "nic-mtu",
    Severity.WARNING,
    checks="a NIC whose MTU differs from that of its bridge",
    advice="one MTU along NIC, bond, bridge, tap and guest",
    why="packets that are too large are fragmented, or dropped without a word",
    guide="5.2",
    page=NICS,
    mends=EDIT + "mtu.size={mtu}",
)
def nic_mtu(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Without <mtu> libvirt gives the tap device its bridge's."""
    for nic in one.hardware.nics:
        if nic.mtu and nic.type == "bridge":
            bridge = scene.facts.links.get().get(nic.source)
            if bridge and bridge.mtu != nic.mtu:
                told = f"{_named(nic)} has MTU {nic.mtu}, {printable(nic.source)} {bridge.mtu}"
                yield Found(told, {"which": _which(one, nic), "mtu": bridge.mtu})


@host_rule(
    "net-mtu",
    Severity.WARNING,
    checks="a port whose MTU differs from that of its bridge or bond",
    advice="one MTU along NIC, bond, bridge, tap and guest",
    why="packets that are too large are fragmented, or dropped without a word",
    guide="5.2",
    page="https://docs.kernel.org/networking/bridge.html",
    mends="ip link set dev {port} mtu {mtu}",
)
def link_mtu(scene: Scene) -> Iterator[Found]:
    """A bridge takes the smallest MTU of its ports unless somebody sets one."""
    links = scene.facts.links.get()
    for name, link in sorted(links.items()):
        master = links.get(link.master)
        if master and link.mtu != master.mtu:
            told = f"{printable(name)} has MTU {link.mtu}, {printable(link.master)} {master.mtu}"
            yield Found(told, {"port": name, "mtu": _largest(links, link.master)})


def _largest(links: Mapping[str, NetworkLink], master: str) -> int:
    return max(link.mtu for name, link in links.items() if master in (name, link.master))


@host_rule(
    "net-arp-flux",
    Severity.WARNING,
    checks="several interfaces in one network without arp_filter",
    advice="arp_filter=1 with source-based routing, or one interface per network",
    why="the host answers ARP on whichever interface: traffic takes the wrong one",
    guide="5.2",
    page=SYSCTL,
    mends="sysctl -w net.ipv4.conf.all.arp_filter=1",
    profile=ByProfile("arp_filter=1"),
)
def arp_flux(scene: Scene) -> Iterator[Found]:
    """By directly connected networks of the routing table."""
    if scene.facts.arp_filter.get():
        return
    for network, names in sorted(scene.facts.subnets.get().items()):
        if len(names) > 1:
            yield Found(f"{', '.join(map(printable, names))} are all in {network}")
