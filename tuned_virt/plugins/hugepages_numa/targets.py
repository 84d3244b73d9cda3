# SPDX-License-Identifier: GPL-2.0-or-later
"""What a policy makes of each pool on this machine, and what a node cannot spare. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from tuned_virt.kernel import cpuset
from tuned_virt.plugins.hugepages_numa import boot
from tuned_virt.plugins.hugepages_numa.policy import Amount, HugepagesPolicy, OnPartial, PoolRequest
from tuned_virt.plugins.hugepages_numa.pools import size_name
from tuned_virt.plugins.hugepages_numa.setting_types import (
    OvercommitSetting,
    Pages,
    PoolSetting,
    Setting,
    Value,
)
from tuned_virt.plugins.hugepages_numa.state import HugepagesState

RESERVE_PERCENT, RESERVE_MIB = 10, 8192
"""Unless asked otherwise each node keeps the lesser of both."""

KIB = 1024

NO_ORIGINALS: Mapping[Setting, Value] = {}


def impossible(policy: HugepagesPolicy, state: HugepagesState) -> Iterator[tuple[str, str]]:
    """What this machine does not have, with what would be valid."""
    sizes = _sizes(state)
    nodes = cpuset.text(state.nodes)
    for request in policy.pools:
        name = f"pages_{size_name(request.size_kib)}"
        unknown = {node for node in request.nodes if node is not None} - state.nodes.keys()
        if request.size_kib not in state.sizes:
            why = boot.left_out(state.cmdline, request.size_kib)
            more = f"; {why}" if why else ""
            yield name, f"'{request.text}': huge pages of this machine are of {sizes}{more}"
        elif unknown:
            yield name, f"'{request.text}': nodes with memory here are {nodes}"
    for size in (*policy.mounts, *policy.overcommit):
        if size not in state.sizes:
            yield f"of {size_name(size)}", f"huge pages of this machine are of {sizes}"
    for size, count in policy.overcommit.items():
        if size in state.sizes and size >= boot.GIGANTIC:
            yield (
                str(OvercommitSetting(size)),
                f"'{count}': the kernel has no surplus pages of {size_name(size)}",
            )


def _sizes(state: HugepagesState) -> str:
    return ", ".join(map(size_name, state.sizes)) or "none"


def pools(
    policy: HugepagesPolicy,
    state: HugepagesState,
    originals: Mapping[Setting, Value] = NO_ORIGINALS,
) -> tuple[dict[PoolSetting, int], tuple[str, ...]]:
    """Persistent pages by pool, and what was noticed; pools of guests only grow, or shrink to what
    they were at first."""
    asked = {
        pool: count
        for request in policy.pools
        if not request.guests
        for pool, count in explicit(request, state)
    }
    sizes = {one.size_kib for one in policy.pools if one.guests}
    if not sizes:
        return asked, ()
    notes = [state.remark] if state.remark else []
    notes += far(state)
    targets = dict(asked)
    for pool in sorted(state.pools, key=lambda pool: (-pool.size_kib, pool.node)):
        if pool.size_kib in sizes:
            targets[pool], note = _for_guests(policy, state, targets, pool, originals)
            notes += [note] if note else []
    return targets, tuple(notes)


def explicit(request: PoolRequest, state: HugepagesState) -> Iterator[tuple[PoolSetting, int]]:
    """Pages by pool, of a request that names them."""
    for node, memory in state.nodes.items():
        amount = request.nodes.get(node, request.nodes.get(None))
        pool = PoolSetting(node, request.size_kib)
        if amount is not None and pool in state.pools:
            yield pool, amount.of(memory.total // pool.size_kib)


def _for_guests(
    policy: HugepagesPolicy,
    state: HugepagesState,
    targets: Pages,
    pool: PoolSetting,
    originals: Mapping[Setting, Value],
) -> tuple[int, str]:
    """Pages for what guests ask for and headroom, as far as the node can spare them."""
    now = state.pools[pool]
    asked = state.demand.get(pool, 0)
    least, lately = now.persistent, asked
    if state.lately is not None:
        original = originals.get(pool, now.persistent)
        least = min(now.persistent, original if isinstance(original, int) else 0)
        lately = max(asked, state.lately.get(pool, 0))
    if not lately:
        return least, ""
    headroom = _headroom(policy.headroom, lately, pool.size_kib)
    wanted = max(least, lately + headroom)
    spare = spare_kib(policy, state, pool.node) - growth_kib(state, targets, pool.node)
    most = max(now.persistent, now.total + max(0, spare) // pool.size_kib)
    if wanted <= most:
        return wanted, ""
    return most, (
        f"{pool}: guests request {asked} pages, with headroom {wanted}; the node can spare {most}"
    )


def unserved(
    policy: HugepagesPolicy, state: HugepagesState, targets: Pages
) -> Iterator[tuple[str, str]]:
    """Guests that could not start with these targets, and why, each as if it were the next."""
    for name, why in state.invalid:
        yield f"pages for guest {name}", f"libvirt does not start it: {why}"
    offered = set(state.sizes) - {one.size_kib for one in policy.pools if one.guests}
    for name, portions in state.requests:
        wanted: Counter[tuple[int, tuple[int, ...]]] = Counter()
        for one in portions:
            wanted[one.size_kib, one.nodes] += one.pages
        for (size, nodes), pages in wanted.items():
            why = _unserved(state, targets, size, nodes, pages)
            option = f"pages_{size_name(size)}"
            hint = f"; {option}=guests requests them" if size in offered else ""
            if why:
                yield f"{option} for guest {name}", f"it could not start: {why}{hint}"


def _unserved(
    state: HugepagesState, targets: Pages, size: int, nodes: tuple[int, ...], pages: int
) -> str:
    """Why so many pages on any of these nodes (none: of all) are not there; "" where they are."""
    if size not in state.sizes:
        return f"huge pages of this machine are of {_sizes(state)}"
    missing = set(nodes) - state.nodes.keys()
    if missing:
        return f"nodes with memory here are {cpuset.text(state.nodes)}, not {cpuset.text(missing)}"
    places = [pool for pool in state.pools if pool.size_kib == size]
    free = state.overcommit.get(size, 0)
    for pool in places:
        if not nodes or pool.node in nodes:
            now = state.pools[pool]
            free += max(0, targets.get(pool, now.persistent) - now.mapped)
    if free >= pages:
        return ""
    where = f" on node {cpuset.text(nodes)}" if nodes else ""
    return f"{pages} pages are requested{where}, {free} are free"


def far(state: HugepagesState) -> Iterator[str]:
    """What guests get on nodes without CPUs, though they name none."""
    for pool, pages in sorted(state.far.items()):
        yield (
            f"{pool}: {pages} pages for guests that name no node: it has no CPUs, but no node with"
            " CPUs has room for them"
        )


def everywhere(policy: HugepagesPolicy, state: HugepagesState) -> Iterator[str]:
    """Requests for all nodes that take memory of nodes without CPUs, too."""
    for request in policy.pools:
        if None in request.nodes:
            bare = state.without_cpus - {node for node in request.nodes if node is not None}
            if bare:
                yield (
                    f"pages_{size_name(request.size_kib)}: '{request.text}' takes memory of node"
                    f" {cpuset.text(bare)} too, without CPUs; node numbers instead of all leave it"
                )


def _headroom(headroom: Amount, asked: int, size_kib: int) -> int:
    if headroom.percent:
        return -(-asked * headroom.value // 100)
    return -(-headroom.value * KIB // size_kib)


def reserve_kib(policy: HugepagesPolicy, total_kib: int) -> int:
    """KiB that huge pages must leave to a node of so many KiB."""
    if policy.reserve is None:
        return min(total_kib * RESERVE_PERCENT // 100, RESERVE_MIB * KIB)
    return policy.reserve.of(total_kib) if policy.reserve.percent else policy.reserve.value * KIB


def spare_kib(policy: HugepagesPolicy, state: HugepagesState, node: int) -> int:
    """KiB that a node could give to huge pages now; negative where it has less than its reserve."""
    memory = state.nodes[node]
    return memory.available - reserve_kib(policy, memory.total)


def growth_kib(state: HugepagesState, targets: Pages, node: int) -> int:
    """KiB that targets take from a node; what they give back counts against it."""
    return sum(
        state.pools[pool].growth(target) * pool.size_kib
        for pool, target in targets.items()
        if pool.node == node
    )


def starved(
    policy: HugepagesPolicy, state: HugepagesState, targets: Pages
) -> Iterator[tuple[str, str]]:
    """Nodes that the request would leave less than their reserve, with the arithmetic."""
    for node, memory in state.nodes.items():
        grown = growth_kib(state, targets, node)
        if grown > 0 and grown > spare_kib(policy, state, node):
            parts = [
                f"{target} pages of {size_name(pool.size_kib)} ({state.pools[pool].total} exist)"
                for pool, target in sorted(targets.items())
                if pool.node == node
            ]
            kept = reserve_kib(policy, memory.total) // KIB
            yield (
                f"node{node}",
                f"{', '.join(parts)} need {grown // KIB} MiB more; the node can give"
                f" {max(spare_kib(policy, state, node), 0) // KIB} MiB"
                f" ({memory.available // KIB} free or cache, less reserve_free {kept})",
            )


def lenders(
    policy: HugepagesPolicy, state: HugepagesState, targets: Pages, originals: Collection[Setting]
) -> Iterator[tuple[PoolSetting, tuple[int, ...]]]:
    """By pool, larger sizes that nobody asks for here, whose pages can be split for it."""
    if policy.on_partial is not OnPartial.DEMOTE:
        return
    for pool in targets:
        larger = tuple(
            other.size_kib
            for other, now in state.pools.items()
            if other.node == pool.node
            and state.demotes.get(other.size_kib) == pool.size_kib
            and other not in targets
            and (now.free or other in originals)
        )
        if larger:
            yield pool, larger
