# SPDX-License-Identifier: GPL-2.0-or-later
"""From a policy to the pools: what is written where and in which order, and what must not be.

Larger pages come before smaller ones, giving back before taking. What a node would lack is found
out before the first write. Persistent pages (nr − surplus) are what is asked for and put back:
shrinking a pool below what is mapped leaves those pages as surplus, which the kernel takes back as
guests stop (the kernel's hugetlbpage.rst).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from tuned_virt.core.plan import Change, Plan, Values
from tuned_virt.plugins.hugepages_numa import notes as remarks
from tuned_virt.plugins.hugepages_numa import targets
from tuned_virt.plugins.hugepages_numa.policy import HugepagesPolicy, OnPartial, Remedy
from tuned_virt.plugins.hugepages_numa.pools import FOLDER, folder, size_of
from tuned_virt.plugins.hugepages_numa.state import (
    HugepagesState,
    Place,
    mount_of,
    mount_setting,
    overcommit_setting,
    place_of,
    pool_setting,
    transparent_file,
)

NONE = "this kernel has no huge pages"


@dataclass(frozen=True)
class PoolChange(Change):
    """Pages of one pool: allocated, or given back.

    demote      pages that are split for the pool of the next smaller size instead
    lenders     larger sizes in KiB whose free pages may be split when this pool comes out short
    timeout     seconds
    """

    node: int = 0
    size_kib: int = 0
    demote: int = 0
    remedies: tuple[Remedy, ...] = ()
    timeout: float = 0.0
    rollback: bool = False
    lenders: tuple[int, ...] = ()


@dataclass(frozen=True)
class MountChange(Change):
    """A hugetlbfs mount, made or taken away; then the named daemons of libvirt are restarted."""

    size_kib: int = 0
    restart: tuple[str, ...] = ()


def plan(policy: HugepagesPolicy, state: HugepagesState, originals: Values) -> Plan:
    """The writes that take huge pages from `state` to the policy, with kept originals put back.

    What a machine does not have, or a node cannot spare, is refused, and then nothing of the
    policy is applied.
    """
    if not state.pools and policy.pools:
        nothing = plan(replace(policy, pools=(), mounts={}, overcommit={}), state, originals)
        return replace(nothing, missing={**nothing.missing, "pages": NONE})
    refused = dict(targets.impossible(policy, state))
    pages, notes = ({}, ()) if refused else targets.pools(policy, state)
    if not refused:
        refused = dict(targets.starved(policy, state, pages))
    if refused:
        nothing = plan(HugepagesPolicy(), state, originals)
        return replace(nothing, refused=refused)
    return _PoolPlanning(policy, state, originals, pages).plan(notes)


class _PoolPlanning:
    """One plan in the making, of targets that are known to be possible."""

    def __init__(
        self,
        policy: HugepagesPolicy,
        state: HugepagesState,
        originals: Values,
        pages: Mapping[Place, int],
    ) -> None:
        self._policy = policy
        self._state = state
        self._now = state.values
        pools = {pool_setting(place): str(count) for place, count in pages.items()}
        mounted = {mount_setting(size, one.path): one.text for size, one in policy.mounts.items()}
        overcommit = {overcommit_setting(size): str(n) for size, n in policy.overcommit.items()}
        asked = {**pools, **policy.transparent, **overcommit, **mounted}
        self._asked = {name: value for name, value in asked.items() if name in self._now}
        self._missing = {name: _no_file(name) for name in asked if name not in self._now}
        self._lenders = dict(targets.lenders(policy, state, pages, originals))
        self._lent = [
            pool_setting((node, size))
            for (node, _), sizes in self._lenders.items()
            for size in sizes
        ]
        kept = self._asked.keys() | set(self._lent)
        back = {name: value for name, value in originals.items() if name not in kept}
        self._back = {name: value for name, value in back.items() if name in self._now}
        self._gone = back.keys() - self._back.keys()
        self._targets = {**self._back, **self._asked}
        self._pools = {
            place: int(value) for name, value in self._targets.items() if (place := place_of(name))
        }

    def plan(self, notes: Iterable[str]) -> Plan:
        """The plan, with what was noticed so far."""
        return Plan(
            changes=tuple(self._changes()),
            originals={name: self._now[name] for name in (*self._asked, *self._lent)},
            wanted={**self._asked, **remarks.boots(self._policy, self._state)},
            missing=self._missing,
            pending=dict.fromkeys(self._gone, "its node or file is not there"),
            notes=(*notes, *self._drains(), *remarks.read(self._policy, self._state)),
        )

    def _changes(self) -> Iterator[Change]:
        mounted = [name for name in self._targets if mount_of(name)]
        away = [name for name in mounted if not self._targets[name].startswith("/")]
        yield from self._mounts(away)
        yield from self._files()
        yield from self._pool_changes()
        yield from self._mounts(name for name in mounted if name not in away)

    def _differs(self, name: str) -> bool:
        return self._targets[name] != self._now[name]

    def _why(self, name: str) -> str:
        return "asked for" if name in self._asked else "as it was before"

    def _mounts(self, names: Iterable[str]) -> Iterator[Change]:
        restart = self._state.daemons if self._policy.restart_libvirt else ()
        for name in filter(self._differs, names):
            size, path = mount_of(name) or (0, "")
            change = (name, path, self._now[name], self._targets[name], self._why(name))
            yield MountChange(*change, size_kib=size, restart=restart)

    def _files(self) -> Iterator[Change]:
        for name in filter(self._differs, self._targets):
            path = _file(name)
            if path:
                yield Change(name, path, self._now[name], self._targets[name], self._why(name))

    def _pool_changes(self) -> Iterator[Change]:
        steps = {
            place: count - self._state.pools[place].persistent
            for place, count in self._pools.items()
        }
        ordered = sorted(steps, key=lambda place: (-place[1], place[0]))
        shrinking = [place for place in ordered if steps[place] < 0]
        for place in sorted(shrinking, key=self._surplus_after):
            yield self._pool_change(place, steps)
        yield from (self._pool_change(place, steps) for place in ordered if steps[place] > 0)

    def _pool_change(self, place: Place, steps: Mapping[Place, int]) -> PoolChange:
        node, size = place
        name = pool_setting(place)
        growing = steps[place] > 0
        return PoolChange(
            name,
            f"{folder(node, size)}/nr_hugepages",
            self._now[name],
            self._targets[name],
            self._why(name),
            slow=True,
            node=node,
            size_kib=size,
            demote=0 if growing else self._demotes(place, steps),
            remedies=self._policy.remedies if growing else (),
            timeout=float(self._policy.timeout),
            rollback=growing and self._policy.on_partial is OnPartial.ROLLBACK,
            lenders=self._lenders.get(place, ()) if growing else (),
        )

    def _surplus_after(self, place: Place) -> bool:
        """Whether pages of a pool become surplus, which before Linux 6.7 hinders other nodes'."""
        pool = self._state.pools[place]
        return pool.mapped > self._pools[place]

    def _demotes(self, place: Place, steps: Mapping[Place, int]) -> int:
        """Pages of a shrinking pool that the node's growing pool of the next size can use."""
        node, size = place
        smaller = self._state.demotes.get(size, 0)
        growth = steps.get((node, smaller), 0)
        pool = self._state.pools[place]
        return max(0, min(-steps[place], pool.free, growth * smaller // size)) if smaller else 0

    def _drains(self) -> Iterator[str]:
        """What guests have mapped beyond a pool: the kernel takes it back as they stop."""
        for place, target in sorted(self._pools.items()):
            pool = self._state.pools[place]
            if pool.mapped > target:
                yield (
                    f"{pool_setting(place)}: pending drain: {pool.mapped} pages are in use,"
                    f" {pool.mapped - target} more than the pool is to have; the kernel takes them"
                    " back as guests stop"
                )


def _file(name: str) -> str:
    """The kernel's file of a setting that is one; "" for pools and mounts."""
    if place_of(name) or mount_of(name):
        return ""
    if name.startswith("overcommit_"):
        size = size_of(name.partition("_")[2])
        return f"{FOLDER}/hugepages-{size}kB/nr_overcommit_hugepages"
    return transparent_file(name)


def _no_file(name: str) -> str:
    return f"this kernel has no {_file(name) or name}"
