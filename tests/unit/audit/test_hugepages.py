# SPDX-License-Identifier: GPL-2.0-or-later
"""A scene in which each rule of the topic finds something, and one in which it does not."""

from __future__ import annotations

from tests.unit.audit.scenes import GIB, Case, guest, host, scene


def backed(size: str = "", gib: float = 2, cpu: str = "<cpu mode='host-model'/>") -> str:
    page = f"<page size='{size[:-1]}' unit='{size[-1]}'/>" if size else ""
    backing = f"<memoryBacking><hugepages>{page}</hugepages></memoryBacking>"
    return guest(gib=gib, body=backing, cpu=cpu)


HAS = host(pages={4: 1, 2048: 1024, GIB: 2})
CELLS = """<cpu mode='host-model'><numa><cell id='0' cpus='0' memory='1572864'/>
<cell id='1' cpus='1' memory='1572864'/></numa></cpu>"""

CASES = {
    "hugepages-missing": Case(
        fails=scene(backed("1G")),
        found="2 pages of 1048576 KiB, of which no node has any",
        command="virsh allocpages --pagesize 1048576 --pagecount 2 --cellno 0 --add",
        passes=scene(backed("1G"), on=HAS),
        also={"1024 pages of 2048 KiB, of which no node has any": scene(backed())},
        fine=(scene(guest()), scene(backed(), on=HAS)),
    ),
    "hugepages-short": Case(
        fails=scene(backed("1G", gib=4), on=HAS),
        found="4 pages of 1048576 KiB, the host has 2",
        command="virsh allocpages --pagesize 1048576 --pagecount 2 --cellno 0 --add",
        passes=scene(backed("1G"), on=HAS),
        fine=(scene(backed("1G")),),
    ),
    "hugepages-not-mounted": Case(
        fails=scene(backed("1G"), on=HAS, mounted=frozenset({2048})),
        found="pages of 1048576 KiB are not mounted",
        command="mkdir -p /dev/hugepages1048576K && mount -t hugetlbfs -o pagesize=1048576K"
        " hugetlbfs /dev/hugepages1048576K",
        passes=scene(backed("1G"), on=HAS),
        fine=(scene(guest(), mounted=frozenset()),),
    ),
    "hugepages-multiple": Case(
        fails=scene(backed("1G", gib=2.5), on=HAS),
        found="2560 MiB in pages of 1024 MiB",
        command="virt-xml vm1 --edit --memory memory=3072,currentMemory=3072",
        passes=scene(backed("1G", gib=2), on=HAS),
        also={"1536 MiB in pages of 1024 MiB": scene(backed("1G", gib=3, cpu=CELLS), on=HAS)},
        fine=(scene(backed(gib=2.5)),),
    ),
}
