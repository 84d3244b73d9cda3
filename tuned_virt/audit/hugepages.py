# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge pages that guests ask for, against what the host has: chapter 8.3.3."""

from __future__ import annotations

from collections.abc import Iterator

from tuned_virt.audit.rule import ByProfile, Found, Severity, guest_rule
from tuned_virt.audit.scene import AuditedGuest, Scene

BACKING = "https://libvirt.org/formatdomain.html#memory-backing"
KERNEL = "https://docs.kernel.org/admin-guide/mm/hugetlbpage.html"
POOLS = ByProfile("hugepages_2M or hugepages_1G, by node")
ALLOCATE = "virsh allocpages --pagesize {size} --pagecount {count} --cellno {node} --add"

USUAL = 2048
"""KiB; the default size on x86, and of a host that is not known."""


def sizes(one: AuditedGuest, usual: int) -> list[tuple[int, int]]:
    """(page size, memory in it) in KiB, cell by cell; the memory that no <page> names is usual."""
    cells = {cell.id: cell.memory for cell in one.guest.cells} or {0: one.guest.memory}
    found: dict[int, int] = {}
    for cell, memory in cells.items():
        chosen = [page for page in one.guest.huge_pages if page.cells and cell in page.cells]
        chosen += [page for page in one.guest.huge_pages if page.cells is None]
        if chosen:
            size = chosen[0].size or usual
            found[size] = found.get(size, 0) + memory
    return sorted(found.items())


def _usual(scene: Scene) -> int:
    return scene.host.huge_page if scene.host else USUAL


@guest_rule(
    "hugepages-missing",
    Severity.ERROR,
    checks="a guest with huge pages of a size that no node has",
    advice="a pool of that size, or another size",
    why="QEMU cannot allocate its memory, so it does not start",
    guide="8.3.3.2",
    page=KERNEL,
    mends=ALLOCATE,
    profile=POOLS,
)
def missing(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Pools that are empty, and sizes that the CPU does not have."""
    for size, memory in sizes(one, _usual(scene)):
        nodes = scene.topology.nodes
        if not any(node.pages.get(size) for node in nodes):
            offered = any(size in node.pages for node in nodes)
            count, node = -(-memory // size), next(node.id for node in nodes if node.cpus)
            values = {"size": size, "count": count, "node": node} if offered else None
            yield Found(f"{count} pages of {size} KiB, of which no node has any", values)


@guest_rule(
    "hugepages-short",
    Severity.ERROR,
    checks="a guest that needs more huge pages than all pools of that size have",
    advice="larger pools, or less memory for the guest",
    why="QEMU cannot allocate its memory, so it does not start",
    guide="8.3.3.2",
    page=KERNEL,
    mends=ALLOCATE,
    profile=POOLS,
)
def short(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Against whole pools: what other guests use of them is not counted."""
    for size, memory in sizes(one, _usual(scene)):
        nodes = scene.topology.nodes
        have, need = sum(node.pages.get(size, 0) for node in nodes), -(-memory // size)
        if 0 < have < need:
            node = max(nodes, key=lambda node: node.pages.get(size, 0)).id
            values = {"size": size, "count": need - have, "node": node}
            yield Found(f"{need} pages of {size} KiB, the host has {have}", values)


@guest_rule(
    "hugepages-not-mounted",
    Severity.ERROR,
    checks="a guest with huge pages of a size that is not mounted",
    advice="mount hugetlbfs with this page size, then restart libvirtd",
    why="libvirt finds no folder for the guest's memory, and refuses to start it",
    guide="8.3.3.3",
    page=KERNEL,
    mends="mkdir -p /dev/hugepages{size}K"
    " && mount -t hugetlbfs -o pagesize={size}K hugetlbfs /dev/hugepages{size}K",
    profile=ByProfile("hugepages_mount_2M or hugepages_mount_1G"),
)
def not_mounted(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """By /proc/mounts."""
    for size, _ in sizes(one, _usual(scene)):
        if size not in scene.facts.mounted.get():
            yield Found(f"pages of {size} KiB are not mounted", {"size": size})


@guest_rule(
    "hugepages-multiple",
    Severity.ERROR,
    checks="memory that is no multiple of its huge pages",
    advice="memory rounded up to whole pages",
    why="QEMU cannot map a part of a page, so it does not start",
    guide="8.3.3.3",
    page=BACKING,
    mends="virt-xml {guest} --edit --memory memory={mib},currentMemory={mib}",
)
def multiple(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Each cell's memory is mapped by itself."""
    usual = _usual(scene)
    for size, memory in sizes(one, usual):
        parts = [cell.memory for cell in one.guest.cells] or [memory]
        odd = [part for part in parts if part % size]
        if odd and len(sizes(one, usual)) == 1:
            mib = -(-memory // size) * size >> 10
            values = None if one.guest.cells else {"mib": mib}
            yield Found(f"{odd[0] >> 10} MiB in pages of {size >> 10} MiB", values)
