# SPDX-License-Identifier: GPL-2.0-or-later
"""A scene in which each rule of the topic finds something, and one in which it does not."""

from __future__ import annotations

from tests.unit.audit.scenes import Case, guest, host, scene

NAMED = "<cpu mode='custom' match='exact'><model fallback='allow'>{}</model></cpu>"
TO_HOST_MODEL = "virt-xml vm1 --edit --cpu host-model"

CASES = {
    "cpu-over-host": Case(
        fails=scene(guest(vcpus=9)),
        found="9 vCPUs on a host with 8 CPUs",
        command="virt-xml vm1 --edit --vcpus maxvcpus=8,vcpu.current=8,sockets=8,cores=1,threads=1",
        passes=scene(guest(vcpus=8)),
        fine=(scene(guest(vcpus=16, vcpu="current='8'")),),
    ),
    "cpu-overcommit": Case(
        fails=scene(guest(vcpus=8), guest(name="vm2")),
        found="10 vCPUs run on 8 CPUs, 1.2 to one",
        passes=scene(guest(vcpus=8)),
    ),
    "cpu-overcommit-heavy": Case(
        fails=scene(*(guest(name=f"vm{n}", vcpus=3) for n in range(14)), on=host(threads=2)),
        found="42 vCPUs run on 4 cores",
        passes=scene(*(guest(name=f"vm{n}", vcpus=3) for n in range(13)), on=host(threads=2)),
    ),
    "cpu-model-default": Case(
        fails=scene(guest(cpu="")),
        found="its CPU model is none, so it gets qemu64",
        command=TO_HOST_MODEL,
        passes=scene(guest(cpu="<cpu mode='host-passthrough'/>")),
        also={
            "its CPU model is qemu64": scene(guest(cpu=NAMED.format("qemu64"))),
            "its CPU model is none, so it gets qemu64": scene(
                guest(cpu="<cpu><topology sockets='2' cores='1' threads='1'/></cpu>")
            ),
        },
        fine=(scene(guest(cpu="", arch="aarch64")), scene(guest(cpu="", type="qemu"))),
    ),
    "cpu-model-named": Case(
        fails=scene(guest(cpu=NAMED.format("Skylake-Server-IBRS"))),
        found="its CPU model is Skylake-Server-IBRS",
        command=TO_HOST_MODEL,
        passes=scene(guest()),
        fine=(scene(guest(cpu=NAMED.format("qemu64"))),),
    ),
    "cpu-emulated": Case(
        fails=scene(guest(type="qemu")),
        found="its type is qemu, and this host has /dev/kvm",
        command="virt-xml vm1 --edit --xml ./@type=kvm",
        passes=scene(guest(type="qemu"), kvm=False),
        fine=(scene(guest(type="qemu", arch="aarch64")),),
    ),
}
