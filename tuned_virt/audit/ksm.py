# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel samepage merging against guests that want it, or do not: chapters 8.4 and 9.4."""

from __future__ import annotations

from collections.abc import Iterator

from tuned_virt.audit.rule import ByProfile, Found, Severity, guest_rule, host_rule
from tuned_virt.audit.scene import AuditedGuest, Scene

KERNEL = "https://docs.kernel.org/admin-guide/mm/ksm.html"


def _kept_apart(one: AuditedGuest) -> bool:
    """Whether somebody has given it CPUs or memory of its own."""
    return one.dedicated or one.pins.realtime or one.guest.locked


@host_rule(
    "ksm-across-nodes",
    Severity.WARNING,
    checks="KSM that merges pages across NUMA nodes while guests are kept on nodes",
    advice="merge_across_nodes=0; KSM has to be unmerged first (run=2)",
    why="a merged page is on one node, and far away for guests of the others",
    guide="9.4",
    page=KERNEL,
    mends="virsh node-memory-tune --shm-merge-across-nodes 0",
    profile=ByProfile("ksm_merge_across_nodes=auto", by_itself=True),
)
def across_nodes(scene: Scene) -> Iterator[Found]:
    """Guests that are pinned, bound, or placed by vm_pinning."""
    kept = [one for one in scene.running if one.pins.vcpus or one.pins.nodes or one.placed]
    if kept and scene.several_nodes:
        ksm = scene.facts.ksm.get()
        if ksm.run and ksm.across_nodes:
            yield Found(f"merge_across_nodes is 1, and {len(kept)} guests are kept on nodes")


@host_rule(
    "ksm-off-overcommitted",
    Severity.INFO,
    checks="KSM turned off while the guests have more memory than the host",
    advice="KSM, where all guests belong to one tenant",
    why="equal pages of guests take memory that is short",
    guide="8.4",
    page=KERNEL,
    mends="tuned-adm profile virtual-host-plus",
    profile=ByProfile("ksm_mode=auto", by_itself=True),
)
def off_overcommitted(scene: Scene) -> Iterator[Found]:
    """Our profile starts it when memory is short, not before."""
    have = sum(node.memory for node in scene.topology.nodes)
    need = sum(one.guest.memory for one in scene.running if one.guest.shares_pages)
    ours = "virtual-host-plus" in (scene.facts.profiles.value or ())
    if have and need > have and not ours and not scene.facts.ksm.get().run:
        yield Found(f"guests have {need >> 10} MiB, the host {have >> 10}")


@guest_rule(
    "ksm-merges-dedicated",
    Severity.INFO,
    checks="a guest with dedicated CPUs or locked memory whose pages KSM merges",
    advice="<nosharepages/>",
    why="a write to a merged page waits until the kernel has copied it",
    guide="8.3.2.2",
    page="https://libvirt.org/formatdomain.html#memory-backing",
    mends="virt-xml {guest} --edit --memorybacking nosharepages=yes",
)
def merges_dedicated(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Huge pages are not merged."""
    merged = one.guest.shares_pages and not one.guest.huge_pages
    if merged and _kept_apart(one) and scene.facts.ksm.get().run:
        yield Found("KSM runs, and the guest has CPUs or memory of its own")


@guest_rule(
    "ksm-opted-out",
    Severity.INFO,
    checks="an ordinary guest that opts out of KSM on a host that merges",
    advice="without <nosharepages/>, unless the guest's tenant must not share pages",
    why="its equal pages take memory that the others give up",
    guide="8.3.2.2",
    page="https://libvirt.org/formatdomain.html#memory-backing",
    mends="virt-xml {guest} --edit --xml xpath.delete=./memoryBacking/nosharepages",
)
def opted_out(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """One with dedicated CPUs or locked memory has a reason."""
    ordinary = not _kept_apart(one) and not one.guest.huge_pages
    if not one.guest.shares_pages and ordinary and scene.facts.ksm.get().run:
        yield Found("KSM runs, and the guest has <nosharepages/>")
