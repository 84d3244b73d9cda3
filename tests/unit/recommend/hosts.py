# SPDX-License-Identifier: GPL-2.0-or-later
"""Other people's hosts, each in a few lines: what they run on, and what runs there."""

from __future__ import annotations

from collections.abc import Iterable

from tests.unit.audit.scenes import GIB, MadeScene, guest, host, numatune, pinned, scene
from tuned_virt.audit.scene import Scene
from tuned_virt.frozen_dataclasses import replace
from tuned_virt.model.host_facts import Fact
from tuned_virt.model.topology import Cache, Host
from tuned_virt.recommend.situation import Situation

WINDOWS = """<metadata><libosinfo:libosinfo
xmlns:libosinfo='http://libosinfo.org/xmlns/libvirt/domain/1.0'>
<libosinfo:os id='http://microsoft.com/win/11'/></libosinfo:libosinfo></metadata>"""

HUGE = "<memoryBacking><hugepages/></memoryBacking>"
HUGE_1G = "<memoryBacking><hugepages><page size='1' unit='G'/></hugepages></memoryBacking>"

DISK_SWAP, RAM_SWAP = Fact(False, ""), Fact(True, "")


def passed(*addresses: str) -> str:
    """<hostdev> of addresses such as 0c:00.1."""
    return "".join(
        "<hostdev mode='subsystem' type='pci' managed='yes'><source>"
        f"<address domain='0x0000' bus='0x{one[:2]}' slot='0x{one[3:5]}' function='0x{one[6]}'/>"
        "</source></hostdev>"
        for one in addresses
    )


def memnodes(*nodes: int) -> str:
    inside = "".join(
        f"<memnode cellid='{cell}' mode='strict' nodeset='{node}'/>"
        for cell, node in enumerate(nodes)
    )
    return f"<numatune>{inside}</numatune>"


def cells(*gib: int, vcpus: int) -> str:
    """<cpu> with cells of so many vCPUs each."""
    inside = "".join(
        f"<cell id='{at}' cpus='{at * vcpus}-{at * vcpus + vcpus - 1}' memory='{one * GIB}'/>"
        for at, one in enumerate(gib)
    )
    return f"<cpu mode='host-passthrough'><numa>{inside}</numa></cpu>"


def with_uuids(made: Scene) -> Scene:
    """As on a host, where each guest has one."""
    guests = tuple(
        replace(one, guest=replace(one.guest, uuid=f"0000000a-0000-4000-8000-{at:012x}"))
        for at, one in enumerate(made.guests)
    )
    return replace(made, guests=guests)


def seen(made: MadeScene, **more: object) -> Situation:
    return Situation(with_uuids(made), **{"swap_in_ram": DISK_SWAP, **more})  # type: ignore[arg-type]


def x3d(base: Host) -> Host:
    """A Ryzen 7950X3D: of two LLCs one has 96 MiB, the other 32."""
    first, last = range(16), range(16, 32)
    caches = (Cache(frozenset(first), 96 << 10), Cache(frozenset(last), 32 << 10))
    return replace(base, caches=caches)


def gaming(body: str = HUGE, on: Host | None = None) -> Situation:
    """A desktop with a graphics card for Windows (github.com/ilayna/Single-GPU-passthrough…,
    pull request 12: 8 vCPUs, 16 GiB of huge pages)."""
    windows = guest(
        name="win11",
        vcpus=8,
        gib=16,
        metadata=WINDOWS,
        devices=passed("0c:00.0", "0c:00.1"),
        body=body,
    )
    return seen(scene(windows, on=on or x3d(host(cpus=32, gib=64, threads=2))))


def desktops(number: int = 40) -> Situation:
    """VDI: 40 desktops of 2 vCPUs and 4 GiB on two nodes of 16 CPUs and 64 GiB."""
    some = [guest(name=f"desk-{at}", vcpus=2, gib=4, metadata=WINDOWS) for at in range(number)]
    made = scene(*some, on=host(nodes=2, cpus=16, gib=64, threads=2))
    return seen(made, delays={"0000000a-0000-4000-8000-000000000000": 12.0})


def database() -> Situation:
    """A database of 64 GiB in huge pages on node 1 of two with 96 GiB, and two small guests."""
    base = guest(name="pg1", vcpus=8, gib=64, body=HUGE + numatune("strict", "1"))
    more = guest(name="pg2", vcpus=4, gib=16, body=HUGE + numatune("strict", "0"))
    return seen(scene(base, more, on=host(nodes=2, cpus=16, gib=96, threads=2)))


def nfv(pins: bool = False, isolated: Iterable[int] = (*range(2, 16), *range(18, 32))) -> Situation:
    """Two network functions with SR-IOV, a cell on each node, 1 GiB pages bound by <memnode>."""
    some = []
    for at in range(2):
        cpus = [f"{2 + 4 * at + n % 4 + 16 * (n // 4)}" for n in range(8)]
        own = pinned(*cpus) if pins else ""
        some.append(
            guest(
                name=f"vnf{at}",
                vcpus=8,
                gib=16,
                cpu=cells(8, 8, vcpus=4),
                devices=passed(f"3b:0{at + 2}.0", f"d8:0{at + 2}.0"),
                body=HUGE_1G + memnodes(0, 1) + own,
            )
        )
    base = host(nodes=2, cpus=16, gib=64, isolated=frozenset(isolated))
    return seen(scene(*some, on=base, mounted=frozenset({2048}), swap=0))


def homelab() -> Situation:
    """An i5 with 12 CPUs and 64 GiB: a router, a file server with its HBA, two Linux guests."""
    return seen(
        scene(
            guest(name="opnsense", vcpus=2, gib=4, devices=passed("02:00.0", "02:00.1")),
            guest(name="nas", vcpus=4, gib=16, devices=passed("03:00.0")),
            guest(name="docker", vcpus=4, gib=8),
            guest(name="home", vcpus=2, gib=4),
            on=host(cpus=12, gib=64, threads=2),
        )
    )
