# SPDX-License-Identifier: GPL-2.0-or-later
"""A scene in which each rule of the topic finds something, and one in which it does not."""

from __future__ import annotations

from tests.unit.audit.scenes import Case, guest, scene
from tuned_virt.model.host_facts import NetworkLink

MAC = "52:54:00:00:00:0a"
EDIT = f"virt-xml vm1 --edit mac={MAC} --network "


def nic(
    inside: str = "<model type='virtio'/>", type: str = "bridge", source: str = "bridge='br0'"
) -> str:
    return f"<interface type='{type}'><mac address='{MAC}'/><source {source}/>{inside}</interface>"


def on(*nics: str, vcpus: int = 2, name: str = "vm1", arch: str = "x86_64") -> str:
    return guest(nics="".join(nics), vcpus=vcpus, name=name, arch=arch)


def virtio(more: str) -> str:
    return nic(f"<model type='virtio'/>{more}")


JUMBO = {
    "br0": NetworkLink(9000),
    "bond0": NetworkLink(9000, "br0"),
    "eth0": NetworkLink(1500, "bond0"),
}
EVEN = {name: NetworkLink(9000, link.master) for name, link in JUMBO.items()}

CASES = {
    "nic-model": Case(
        fails=scene(on(nic("<model type='e1000'/>"))),
        found=f"NIC {MAC}: its model is e1000",
        command=EDIT + "model.type=virtio",
        passes=scene(on(nic())),
        also={
            f"NIC {MAC}: its model is rtl8139": scene(on(nic("<model type='rtl8139'/>"))),
            f"NIC {MAC}: its model is not set, so rtl8139 or e1000": scene(on(nic(""))),
        },
        fine=(scene(on(nic("", type="hostdev"))), scene(on(nic(""), arch="s390x"))),
    ),
    "nic-vhost-off": Case(
        fails=scene(on(virtio("<driver name='qemu'/>"))),
        found=f"NIC {MAC} has driver qemu",
        command=EDIT + "driver.name=vhost",
        passes=scene(on(virtio("<driver name='vhost'/>"))),
        fine=(scene(on(nic("<model type='e1000'/><driver name='qemu'/>"))),),
    ),
    "net-vhost-missing": Case(
        fails=scene(on(nic()), vhost_net=False),
        found="1 virtio NICs, and /dev/vhost-net is missing",
        command="modprobe vhost_net",
        passes=scene(on(nic())),
        fine=(scene(on(nic("<model type='e1000'/>")), vhost_net=False),),
    ),
    "nic-user": Case(
        fails=scene(on(nic(type="user"))),
        found=f"NIC {MAC} is of type user",
        command=EDIT + "network=default",
        passes=scene(on(nic())),
    ),
    "nic-queues": Case(
        fails=scene(on(nic(), vcpus=4)),
        found=f"NIC {MAC} has one queue for 4 vCPUs",
        command=EDIT + "driver.queues=4",
        passes=scene(on(virtio("<driver queues='4'/>"), vcpus=4)),
        fine=(scene(on(nic())), scene(on(virtio("<driver name='qemu'/>"), vcpus=4))),
    ),
    "nic-queues-over-vcpus": Case(
        fails=scene(on(virtio("<driver name='vhost' queues='8'/>"), vcpus=4)),
        found=f"NIC {MAC}: 8 queues, 4 vCPUs",
        command=EDIT + "driver.queues=4",
        passes=scene(on(virtio("<driver queues='4'/>"), vcpus=4)),
    ),
    "net-one-network": Case(
        fails=scene(on(nic()), on(nic(), name="vm2")),
        found="all 2 guests use bridge br0",
        passes=scene(on(nic()), on(nic(source="bridge='br1'"), name="vm2")),
        fine=(scene(on(nic())), scene(on(), on(name="vm2"))),
    ),
    "nic-mtu": Case(
        fails=scene(on(virtio("<mtu size='9000'/>"))),
        found=f"NIC {MAC} has MTU 9000, br0 1500",
        command=EDIT + "mtu.size=1500",
        passes=scene(on(virtio("<mtu size='1500'/>"))),
        fine=(scene(on(nic())), scene(on(virtio("<mtu size='9000'/>")), links=EVEN)),
    ),
    "net-mtu": Case(
        fails=scene(links=JUMBO),
        found="eth0 has MTU 1500, bond0 9000",
        command="ip link set dev eth0 mtu 9000",
        passes=scene(links=EVEN),
    ),
    "net-arp-flux": Case(
        fails=scene(subnets={"192.0.2.0/24": ("eth0", "eth1")}),
        found="eth0, eth1 are all in 192.0.2.0/24",
        command="sysctl -w net.ipv4.conf.all.arp_filter=1",
        passes=scene(subnets={"192.0.2.0/24": ("eth0", "eth1")}, arp_filter=True),
        fine=(scene(subnets={"192.0.2.0/24": ("eth0",), "198.51.100.0/24": ("eth1",)}),),
    ),
}
