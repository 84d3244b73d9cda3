# SPDX-License-Identifier: GPL-2.0-or-later
"""From a policy to the pools: what is written where and in which order, and what must not be.

Larger pages come before smaller ones, giving back before taking. What a node would lack is found
out before the first write. Persistent pages (nr − surplus) are what is asked for and put back:
shrinking a pool below what is mapped leaves those pages as surplus, which the kernel takes back as
guests stop (the kernel's hugetlbpage.rst).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tuned_virt.core.plan import Change, Plan, Values
from tuned_virt.frozen_dataclasses import dataclass, replace
from tuned_virt.plugins.hugepages_numa import plan_notes, setting_types, targets
from tuned_virt.plugins.hugepages_numa.policy import HugepagesPolicy, OnPartial, Remedy
from tuned_virt.plugins.hugepages_numa.setting_types import (
    HugetlbMount,
    MountSetting,
    NotMounted,
    OvercommitSetting,
    Pages,
    PoolSetting,
    Setting,
    TransparentSetting,
    Value,
)
from tuned_virt.plugins.hugepages_numa.state import HugepagesState

NONE = "this kernel has no huge pages"


FILES = (OvercommitSetting, TransparentSetting)
NO_POOL = PoolSetting(0, 0)
NO_MOUNT = MountSetting(0, "")


@dataclass(frozen=True)
class PoolChange(Change):
    """Pages of one pool: allocated, or given back.

    demote      pages that are split for the pool of the next smaller size instead
    lenders     larger sizes in KiB whose free pages may be split when this pool comes out short
    timeout     seconds
    """

    before: int
    after: int
    pool: PoolSetting = NO_POOL
    demote: int = 0
    remedies: tuple[Remedy, ...] = ()
    timeout: float = 0.0
    rollback: bool = False
    lenders: tuple[int, ...] = ()


@dataclass(frozen=True)
class MountChange(Change):
    """A hugetlbfs mount, made or taken away; then the named daemons of libvirt are restarted."""

    before: HugetlbMount | NotMounted
    after: HugetlbMount | NotMounted
    mount: MountSetting = NO_MOUNT
    restart: tuple[str, ...] = ()


def plan(policy: HugepagesPolicy, state: HugepagesState, originals: Values) -> Plan:
    """The writes that take huge pages from `state` to the policy, with kept originals put back.

    What a machine does not have, or a node cannot spare, is refused, and then nothing of the
    policy is applied. Guests that could not start with it are refused, and all of it is applied.
    """
    if not state.pools and policy.pools:
        nothing = plan(replace(policy, pools=(), mounts={}, overcommit={}), state, originals)
        return replace(nothing, missing={**nothing.missing, "pages": NONE})
    refused = dict(targets.impossible(policy, state))
    before = setting_types.parse(originals)
    pages, notes = ({}, ()) if refused else targets.pools(policy, state, before)
    if not refused:
        refused = dict(targets.starved(policy, state, pages))
    if refused:
        nothing = plan(policy.undoing, state, originals)
        return replace(nothing, refused=refused)
    notes = (*notes, *targets.everywhere(policy, state))
    made = _PoolPlanning(policy, state, originals, pages).plan(notes)
    return replace(made, refused=dict(targets.unserved(policy, state, pages)))


class _PoolPlanning:
    """One plan in the making, of targets that are known to be possible."""

    def __init__(
        self, policy: HugepagesPolicy, state: HugepagesState, originals: Values, pages: Pages
    ) -> None:
        self._policy = policy
        self._state = state
        self._now = state.settings
        asked: dict[Setting, Value] = {
            **{pool: count for pool, count in pages.items()},
            **{TransparentSetting(option): word for option, word in policy.transparent.items()},
            **{OvercommitSetting(size): count for size, count in policy.overcommit.items()},
            **{MountSetting(size, one.path): one for size, one in policy.mounts.items()},
        }
        self._asked = {one: value for one, value in asked.items() if one in self._now}
        self._missing = {str(one): _no_file(one) for one in asked if one not in self._now}
        before = setting_types.parse(originals)
        self._lenders = dict(targets.lenders(policy, state, pages, before))
        self._lent = [
            PoolSetting(pool.node, size) for pool, sizes in self._lenders.items() for size in sizes
        ]
        kept = self._asked.keys() | set(self._lent)
        back = {one: value for one, value in before.items() if one not in kept}
        self._targets = {
            **{one: value for one, value in back.items() if one in self._now},
            **self._asked,
        }
        self._gone = back.keys() - self._targets.keys()
        self._pools = {
            one: value
            for one, value in self._targets.items()
            if isinstance(one, PoolSetting) and isinstance(value, int)
        }

    def plan(self, notes: Iterable[str]) -> Plan:
        """The plan, with what was noticed so far."""
        asked = {str(one): str(value) for one, value in self._asked.items()}
        return Plan(
            changes=tuple(self._changes()),
            originals={str(one): str(self._now[one]) for one in (*self._asked, *self._lent)},
            wanted={**asked, **plan_notes.boots(self._policy, self._state)},
            missing=self._missing,
            pending={str(one): "its node or file no longer exists" for one in self._gone},
            notes=(*notes, *self._drains(), *plan_notes.read(self._policy, self._state)),
        )

    def _changes(self) -> Iterator[Change]:
        mounts = list(self._mounts())
        yield from (one for one in mounts if isinstance(one.after, NotMounted))
        yield from self._files()
        yield from self._pool_changes()
        yield from (one for one in mounts if isinstance(one.after, HugetlbMount))

    def _why(self, setting: Setting) -> str:
        return "set by the profile" if setting in self._asked else "original value"

    def _mounts(self) -> Iterator[MountChange]:
        restart = self._state.daemons if self._policy.restart_libvirt else ()
        for one, after in self._targets.items():
            before = self._state.mounts.get(one) if isinstance(one, MountSetting) else None
            if (
                isinstance(one, MountSetting)
                and before is not None
                and isinstance(after, (HugetlbMount, NotMounted))
                and before != after
            ):
                why = self._why(one)
                yield MountChange(
                    str(one), one.path, before, after, why, mount=one, restart=restart
                )

    def _files(self) -> Iterator[Change]:
        for one, after in self._targets.items():
            if isinstance(one, FILES) and after != self._now[one]:
                yield Change(str(one), one.file, str(self._now[one]), str(after), self._why(one))

    def _pool_changes(self) -> Iterator[Change]:
        steps = {
            pool: count - self._state.pools[pool].persistent for pool, count in self._pools.items()
        }
        ordered = sorted(steps, key=lambda pool: (-pool.size_kib, pool.node))
        shrinking = [pool for pool in ordered if steps[pool] < 0]
        for pool in sorted(shrinking, key=self._surplus_after):
            yield self._pool_change(pool, steps)
        yield from (self._pool_change(pool, steps) for pool in ordered if steps[pool] > 0)

    def _pool_change(self, pool: PoolSetting, steps: Pages) -> PoolChange:
        growing = steps[pool] > 0
        return PoolChange(
            str(pool),
            pool.file,
            self._state.pools[pool].persistent,
            self._pools[pool],
            self._why(pool),
            slow=True,
            pool=pool,
            demote=0 if growing else self._demotes(pool, steps),
            remedies=self._policy.remedies if growing else (),
            timeout=float(self._policy.timeout),
            rollback=growing and self._policy.on_partial is OnPartial.ROLLBACK,
            lenders=self._lenders.get(pool, ()) if growing else (),
        )

    def _surplus_after(self, pool: PoolSetting) -> bool:
        """Whether pages of a pool become surplus, which before Linux 6.7 hinders other nodes'."""
        return self._state.pools[pool].mapped > self._pools[pool]

    def _demotes(self, pool: PoolSetting, steps: Pages) -> int:
        """Pages of a shrinking pool that the node's growing pool of the next size can use."""
        smaller = self._state.demotes.get(pool.size_kib, 0)
        growth = steps.get(PoolSetting(pool.node, smaller), 0)
        free = self._state.pools[pool].free
        return max(0, min(-steps[pool], free, growth * smaller // pool.size_kib)) if smaller else 0

    def _drains(self) -> Iterator[str]:
        """What guests have mapped beyond a pool: the kernel takes it back as they stop."""
        for pool, target in sorted(self._pools.items()):
            mapped = self._state.pools[pool].mapped
            if mapped > target:
                yield (
                    f"{pool}: pending drain: {mapped} pages are in use, {mapped - target}"
                    " more than the pool should have; the kernel frees them as guests"
                    " stop"
                )


def _no_file(setting: Setting) -> str:
    return f"this kernel has no {setting.file if isinstance(setting, FILES) else setting}"
