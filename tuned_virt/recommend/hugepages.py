# SPDX-License-Identifier: GPL-2.0-or-later
"""Pools of huge pages by node, for what guests request at their start."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from tuned_virt.audit.scene import AuditedGuest
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.plugins.hugepages_numa.demand import portions
from tuned_virt.plugins.hugepages_numa.targets import RESERVE_MIB, RESERVE_PERCENT
from tuned_virt.recommend.advice import Advice, LeftSetting, RecommendedSetting
from tuned_virt.recommend.situation import GIB, Situation, count, named, size

SETTINGS: Mapping[int, str] = {2048: "2M", GIB: "1G"}
"""KiB → the end of its settings' names."""

KERNEL = "https://docs.kernel.org/admin-guide/mm/hugetlbpage.html"


@dataclass(frozen=True)
class NeededPages:
    """Pages of one size by node; `certain`: no guest could be on another node."""

    by_node: Mapping[int, int]
    certain: bool


def recommend(seen: Situation) -> Iterator[Advice]:
    """By size; what does not fit a node beside its reserve is told, as the plugin refuses it."""
    if not seen.huge:
        yield LeftSetting("hugepages_2M, hugepages_1G", "no guest requests huge pages")
        return
    room = _room(seen)
    needs = _needs(seen, room)
    short = {node: left for node, left in room.items() if left < 0}
    if short:
        told = "; ".join(f"node {node} lacks {size(-left)}" for node, left in sorted(short.items()))
        yield LeftSetting(
            "hugepages_2M, hugepages_1G",
            f"guests request {size(seen.huge_memory)} in huge pages, more than fits beside what"
            f" each node keeps: {told}",
            short=True,
        )
        return
    for kib, need in sorted(needs.items()):
        if kib in SETTINGS:
            yield from _pool(seen, kib, need)
        else:
            yield LeftSetting(
                "huge pages", f"pages of {kib} KiB have no setting; see tuned-plugin-hugepages_numa"
            )


def _room(seen: Situation) -> dict[int, int]:
    """KiB of each node that may become huge pages."""
    return {
        node.id: node.memory - min(node.memory * RESERVE_PERCENT // 100, RESERVE_MIB << 10)
        for node in seen.host.nodes
        if node.memory
    }


def _needs(seen: Situation, room: dict[int, int]) -> Mapping[int, NeededPages]:
    """By page size, taken from `room`: first what has its node, then each where most is left."""
    pages: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    loose = []
    for one in seen.huge:
        for part in portions(one.guest, seen.host.huge_page):
            nodes = _nodes(seen, one, part.nodes) & room.keys()
            if len(nodes) == 1:
                _take(pages, room, part.size_kib, min(nodes), part.pages)
            elif room:
                loose.append((part.pages, part.size_kib, sorted(nodes or frozenset(room))))
    for number, kib, choice in sorted(loose, reverse=True):
        _take(pages, room, kib, max(choice, key=lambda node: (room[node], -node)), number)
    vague = {kib for _, kib, _ in loose}
    return {kib: NeededPages(dict(found), kib not in vague) for kib, found in pages.items()}


def _take(
    pages: dict[int, dict[int, int]], room: dict[int, int], kib: int, node: int, number: int
) -> None:
    pages[kib][node] += number
    room[node] -= number * kib


def _nodes(seen: Situation, one: AuditedGuest, asked: tuple[int, ...]) -> frozenset[int]:
    """Where a part's pages must be: its <numatune>, else the nodes of its pins."""
    only = frozenset(node.id for node in seen.host.nodes if node.memory)
    if len(only) == 1:
        return only
    return frozenset(asked) or seen.scene.nodes_of(
        frozenset().union(*one.guest.owned.vcpus.values())
    )


def _pool(seen: Situation, kib: int, need: NeededPages) -> Iterator[Advice]:
    name = SETTINGS[kib]
    using = [one for one in seen.huge if _uses(seen, one, kib)]
    total = sum(need.by_node.values())
    by_node = ",".join(f"{node}:{number}" for node, number in sorted(need.by_node.items()))
    told = f"{count(len(using), 'guest')} ({named(using)}): {total} pages, {size(total * kib)}"
    several = sum(bool(node.memory) for node in seen.host.nodes) > 1
    listed = kib >= GIB or (several and need.certain)
    if not listed:
        yield RecommendedSetting(
            f"hugepages_{name}",
            "guests",
            told,
            "the pool is there before guests start, and grows with what they request",
            "guide 8.3.3.2",
        )
        return
    yield RecommendedSetting(
        f"hugepages_{name}",
        by_node,
        f"{told}, by node {by_node}",
        "QEMU takes a guest's pages from its nodes alone, and does not start without them",
        "guide 8.3.3.2",
    )
    if kib >= GIB:
        yield from _at_boot(seen, total)


def _uses(seen: Situation, one: AuditedGuest, kib: int) -> bool:
    return any(part.size_kib == kib for part in portions(one.guest, seen.host.huge_page))


def _at_boot(seen: Situation, total: int) -> Iterator[Advice]:
    yield RecommendedSetting(
        "hugepages_boot",
        "auto",
        f"{total} pages of 1 GiB",
        "a running kernel rarely finds 1 GiB in one piece, so they are put on its command line",
        KERNEL,
    )
    mounted = seen.scene.facts.mounted.value
    if mounted is not None and GIB not in mounted:
        yield RecommendedSetting(
            "hugepages_mount_1G",
            "/dev/hugepages1G",
            "no hugetlbfs with pages of 1 GiB is mounted",
            "libvirt refuses to start a guest whose size of pages is mounted nowhere",
            "guide 8.3.3.3",
        )
