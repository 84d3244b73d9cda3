# SPDX-License-Identifier: GPL-2.0-or-later
"""A scene in which each rule of the topic finds something, and one in which it does not."""

from __future__ import annotations

from tests.unit.audit.scenes import Case, guest, host, numatune, pinned, scene

TWO = host(nodes=2, cpus=4, gib=8)
NEAR = "virsh numatune vm1 --mode {} --nodeset {} --config"
PREFERRED = NEAR.format("preferred", 0)
MEMNODES = """<numatune><memnode cellid='0' mode='strict' nodeset='1'/>
<memnode cellid='1' mode='strict' nodeset='0'/></numatune>"""
CELLS = """<cpu mode='host-model'><numa><cell id='0' cpus='0' memory='1048576'/>
<cell id='1' cpus='1' memory='1048576'/></numa></cpu>"""
VF = """<hostdev mode='subsystem' type='pci' managed='yes'><source>
<address domain='0' bus='0x3b' slot='2' function='1'/></source></hostdev>"""
WITH_VF = host(nodes=2, cpus=4, gib=8, devices={"0000:3b:02.1": 1})


def on_node_0(more: str = "", gib: float = 2, name: str = "vm1") -> str:
    return guest(name=name, gib=gib, body=pinned("0", "1") + more)


CASES = {
    "numa-memory-elsewhere": Case(
        fails=scene(on_node_0(numatune("strict", "1")), on=TWO),
        found="its memory is on node 1, its vCPUs on 0",
        command=NEAR.format("strict", 0),
        passes=scene(on_node_0(numatune("strict", "0")), on=TWO),
        also={
            "the memory of cell 1 is on node 0, its vCPUs on 1": scene(
                guest(cpu=CELLS, body=pinned("0", "4") + MEMNODES), on=TWO
            ),
            "its memory is on node 0-1, its vCPUs on 0": scene(
                on_node_0(numatune("strict", "0-1")), on=TWO
            ),
        },
        fine=(scene(guest(cpu=CELLS, body=pinned("4", "0") + MEMNODES), on=TWO),),
    ),
    "numa-memory-unbound": Case(
        fails=scene(on_node_0(), on=TWO),
        found="its vCPUs are on node 0, its memory on any",
        command=PREFERRED,
        passes=scene(on_node_0(numatune("preferred", "0")), on=TWO),
        fine=(scene(guest(), on=TWO), scene(guest(vcpu="cpuset='0-7'"), on=TWO)),
    ),
    "numa-strict-without-swap": Case(
        fails=scene(on_node_0(numatune("strict", "0")), on=TWO, swap=0),
        found="strict on node 0, and no swap",
        command=PREFERRED,
        passes=scene(on_node_0(numatune("strict", "0")), on=TWO),
        fine=(scene(on_node_0(numatune("preferred", "0")), on=TWO, swap=0),),
    ),
    "numa-strict-overcommitted": Case(
        fails=scene(
            on_node_0(numatune("strict", "0"), gib=5),
            on_node_0(numatune("strict", "0"), gib=5, name="vm2"),
            on=TWO,
        ),
        found="2 guests need 10240 MiB of node 0, which has 8192",
        command=PREFERRED,
        passes=scene(
            on_node_0(numatune("strict", "0"), gib=5),
            on_node_0(numatune("strict", "1"), gib=5, name="vm2"),
            on=TWO,
        ),
        fine=(scene(on_node_0(numatune("preferred", "0"), gib=12), on=TWO),),
    ),
    "numa-absent-nodes": Case(
        fails=scene(guest(body=numatune("strict", "1-2")), on=TWO),
        found="its memory is bound to node 2, which is not here",
        command="virt-xml vm1 --edit --xml xpath.delete=./numatune",
        passes=scene(guest(body=numatune("strict", "0-1")), on=TWO),
    ),
    "numa-over-node": Case(
        fails=scene(guest(vcpus=4, gib=12), on=TWO),
        found="4 vCPUs and 12288 MiB; a node has 4 CPUs and 8192 MiB",
        command="virt-xml vm1 --edit --cpu numa.cell0.cpus=0-1,numa.cell0.memory=6291456,"
        "numa.cell1.cpus=2-3,numa.cell1.memory=6291456",
        passes=scene(guest(vcpus=4, gib=8), on=TWO),
        also={
            "6 vCPUs and 2048 MiB; a node has 4 CPUs and 8192 MiB": scene(guest(vcpus=6), on=TWO)
        },
        fine=(scene(guest(gib=12, cpu=CELLS), on=TWO), scene(guest(gib=12))),
    ),
    "numa-device-elsewhere": Case(
        fails=scene(guest(devices=VF, body=pinned("0", "1")), on=WITH_VF),
        found="0000:3b:02.1 is on node 1, the guest on 0",
        command="for vcpu in $(seq 0 1); do virsh vcpupin vm1 $vcpu 4-7 --config; done",
        passes=scene(guest(devices=VF, body=pinned("4", "5")), on=WITH_VF),
        fine=(scene(guest(devices=VF), on=WITH_VF),),
    ),
}
