# SPDX-License-Identifier: GPL-2.0-or-later
"""A scene in which each rule of the topic finds something, and one in which it does not."""

from __future__ import annotations

from tests.unit.audit.scenes import Case, guest, host, pinned, scene

FLAT = "virt-xml vm1 --edit --vcpus maxvcpus={0},sockets={0},cores=1,threads=1"
WINDOWS = (
    "<metadata><l:libosinfo xmlns:l='http://libosinfo.org/xmlns/libvirt/domain/1.0'>"
    "<l:os id='http://microsoft.com/win/{}'/></l:libosinfo></metadata>"
)


def shaped(sockets: int, cores: int, threads: int, numa: str = "") -> str:
    shape = f"<topology sockets='{sockets}' cores='{cores}' threads='{threads}'/>"
    return f"<cpu mode='host-model'>{shape}{numa}</cpu>"


def cells(*vcpus: str) -> str:
    made = (f"<cell id='{at}' cpus='{one}' memory='1048576'/>" for at, one in enumerate(vcpus))
    return f"<numa>{''.join(made)}</numa>"


SMT = host(threads=2)

CASES = {
    "topology-mismatch": Case(
        fails=scene(guest(vcpus=6, cpu=shaped(2, 2, 1))),
        found="the topology has 4 CPUs, the guest 6",
        command=FLAT.format(6),
        passes=scene(guest(vcpus=4, vcpu="current='2'", cpu=shaped(2, 2, 1))),
    ),
    "topology-windows-sockets": Case(
        fails=scene(guest(vcpus=4, metadata=WINDOWS.format("10"))),
        found="4 sockets",
        command="virt-xml vm1 --edit --vcpus maxvcpus=4,sockets=1,cores=4,threads=1",
        passes=scene(guest(vcpus=4, metadata=WINDOWS.format("10"), cpu=shaped(1, 4, 1))),
        fine=(scene(guest(vcpus=4, metadata=WINDOWS.format("2k19"))), scene(guest(vcpus=4))),
    ),
    "topology-threads": Case(
        fails=scene(guest(vcpus=4, cpu=shaped(1, 2, 2))),
        found="2 threads per core on a host whose cores have 1",
        command=FLAT.format(4),
        passes=scene(
            guest(vcpus=4, cpu=shaped(1, 2, 2), body=pinned("2", "3", "6-7", "6-7")), on=SMT
        ),
        also={
            "2 threads per core, not pinned to siblings": scene(
                guest(vcpus=4, cpu=shaped(1, 2, 2), body=pinned("2", "4", "3", "5")), on=SMT
            ),
            "3 threads per core, which no x86 CPU has": scene(
                guest(vcpus=6, cpu=shaped(1, 2, 3)), on=SMT
            ),
        },
        fine=(scene(guest(vcpus=4, cpu=shaped(1, 4, 1))),),
    ),
    "topology-crosses-cells": Case(
        fails=scene(guest(vcpus=8, cpu=shaped(2, 4, 1, cells("0-1,4-5", "2-3,6-7")))),
        found="vCPUs 0-3 are one socket or die, and in cells 0, 1",
        command=FLAT.format(8),
        passes=scene(guest(vcpus=8, cpu=shaped(2, 4, 1, cells("0-3", "4-7")))),
        fine=(scene(guest(vcpus=8, cpu=shaped(4, 2, 1, cells("0-1,4-5", "2-3,6-7")))),),
    ),
}
