# SPDX-License-Identifier: GPL-2.0-or-later
"""A scene in which each rule of the topic finds something, and one in which it does not."""

from __future__ import annotations

from tests.unit.audit.scenes import Case, guest, host, numatune, pinned, scene

TWO = host(nodes=2, cpus=4, gib=8)
NODE = "for vcpu in $(seq 0 {}); do virsh vcpupin vm1 $vcpu {} --config; done"

CASES = {
    "pin-missing": Case(
        fails=scene(guest(), on=TWO, profiles=("virtual-host",)),
        found="it may run on all 2 nodes",
        command="tuned-adm profile virtual-host-plus",
        passes=scene(guest(), on=TWO),
        fine=(
            scene(guest(), profiles=()),
            scene(guest(body=numatune("preferred", "1")), on=TWO, profiles=()),
            scene(guest(vcpu="placement='auto'"), on=TWO, profiles=()),
        ),
    ),
    "pin-partial": Case(
        fails=scene(guest(vcpus=4, body=pinned("0", "1"))),
        found="vCPUs 2-3 of 4 are not pinned",
        command=NODE.format(3, "0-1"),
        passes=scene(guest(vcpus=2, body=pinned("0", "1"))),
        fine=(scene(guest(vcpus=4, vcpu="cpuset='0-3'", body=pinned("0", "1"))), scene(guest())),
    ),
    "pin-fewer-cpus": Case(
        fails=scene(guest(vcpus=4, vcpu="cpuset='0-2'"), on=TWO),
        found="4 vCPUs on CPUs 0-2",
        command=NODE.format(3, "0-3"),
        passes=scene(guest(vcpus=4, vcpu="cpuset='0-3'"), on=TWO),
    ),
    "pin-shared": Case(
        fails=scene(guest(body=pinned("1", "2")), guest(name="vm2", body=pinned("2", "3"))),
        found="vCPU 0 and vCPU 1 of vm1 share CPU 2",
        command="virsh vcpupin vm2 0 7 --config",
        passes=scene(guest(body=pinned("1", "2")), guest(name="vm2", body=pinned("3", "4"))),
        also={"vCPU 1 and vCPU 0 of vm1 share CPU 1": scene(guest(body=pinned("1", "1")))},
        fine=(scene(guest(body=pinned("0-1", "0-1"))),),
    ),
    "pin-absent-cpus": Case(
        fails=scene(guest(body=pinned("0", "9", emulator="12"))),
        found="it is pinned to CPUs 9,12, which are not online here",
        command="virt-xml vm1 --edit --xml xpath.delete=./cputune"
        " && virt-xml vm1 --edit --vcpus vcpu.cpuset=",
        passes=scene(guest(body=pinned("0", "7"))),
    ),
    "pin-over-nodes": Case(
        fails=scene(guest(vcpus=4, body=pinned("3", "4", "5", "6")), on=TWO),
        found="its pins span nodes 0-1; node 0 would do",
        command=NODE.format(3, "0-3"),
        passes=scene(guest(vcpus=4, vcpu="cpuset='4-7'"), on=TWO),
        fine=(
            scene(guest(vcpus=6, vcpu="cpuset='0-7'"), on=TWO),
            scene(guest(gib=12, vcpu="cpuset='0-7'"), on=TWO),
        ),
    ),
    "pin-emulator-on-vcpus": Case(
        fails=scene(guest(body=pinned("1", "2", emulator="0-1"))),
        found="the emulator may run on CPUs 1 of its vCPUs",
        command="virsh emulatorpin vm1 7 --config",
        passes=scene(guest(body=pinned("1", "2", emulator="0"))),
        fine=(scene(guest(body=pinned("1-2", "1-2", emulator="1-2"))),),
    ),
    "pin-emulator-floating": Case(
        fails=scene(guest(body=pinned("1", "2"))),
        found="its vCPUs are dedicated, its emulator is not pinned",
        command="virsh emulatorpin vm1 7 --config",
        passes=scene(guest(body=pinned("1", "2", emulator="0"))),
        fine=(scene(guest(body=pinned("1-2", "1-2"))),),
    ),
    "pin-isolated": Case(
        fails=scene(guest(vcpu="cpuset='4-7'"), on=host(isolated=frozenset({4, 5, 6, 7}))),
        found="vCPU 1 may run on isolated CPUs 4-7",
        command="virsh vcpupin vm1 1 5 --config",
        passes=scene(guest(body=pinned("4", "5")), on=host(isolated=frozenset({4, 5, 6, 7}))),
    ),
    "pin-auto-without-numad": Case(
        fails=scene(guest(vcpu="placement='auto'"), numad=False),
        found="its placement is auto, and numad is not installed",
        command="virt-xml vm1 --edit --xml xpath.delete=./numatune --xml ./vcpu/@placement=static",
        passes=scene(guest(vcpu="placement='auto'")),
        fine=(scene(guest(), numad=False),),
    ),
}
