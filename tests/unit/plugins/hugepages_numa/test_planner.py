# SPDX-License-Identifier: GPL-2.0-or-later
"""What is planned for mounts, overcommit, and a kernel without huge pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.unit.hugetlb import G1, M2
from tuned_virt.core.plan import Change, Plan
from tuned_virt.model.topology.huge_pages import Pool
from tuned_virt.plugins import hugepages_numa
from tuned_virt.plugins.hugepages_numa import planner
from tuned_virt.plugins.hugepages_numa.planner import MountChange, PoolChange
from tuned_virt.plugins.hugepages_numa.policy import Remedy
from tuned_virt.plugins.hugepages_numa.setting_types import (
    HugetlbMount,
    MountSetting,
    NotMounted,
    PoolSetting,
    mount_value,
)
from tuned_virt.plugins.hugepages_numa.state import HugepagesState, NodeFreeMemory

GIB = 1 << 20
MOUNT = "mount_2M /dev/huge"
POOL = "pages_2M node0"
HUGE = MountSetting(M2, "/dev/huge")


def state(pages: int = 0, mounted: str = "absent", overcommit: int = 0) -> HugepagesState:
    return HugepagesState(
        pools={
            PoolSetting(0, M2): Pool(0, M2, pages, pages, 0),
            PoolSetting(0, G1): Pool(0, G1, 0, 0, 0),
        },
        nodes={0: NodeFreeMemory(8 * GIB, 8 * GIB, 0)},
        overcommit={M2: overcommit},
        transparent={"transparent_hugepages": "madvise"},
        mounts={HUGE: mount_value(HUGE.path, mounted)},
        daemons=("virtqemud",),
    )


def plan(now: HugepagesState, originals: Mapping[str, str] | None = None, **options: str) -> Plan:
    return planner.plan(hugepages_numa.parse(options), now, originals or {})


def settings(made: Plan) -> list[str]:
    return [change.setting for change in made.changes]


def test_a_pool_is_filled_before_it_is_mounted() -> None:
    made = plan(state(), pages_2M="0:8", mount_2M="/dev/huge mode=0700")
    assert settings(made) == [POOL, MOUNT]
    assert made.changes[1] == MountChange(
        MOUNT,
        "/dev/huge",
        NotMounted("/dev/huge"),
        HugetlbMount("/dev/huge", mode="0700"),
        "set by the profile",
        mount=HUGE,
    )
    assert made.originals == {POOL: "0", MOUNT: "absent"}


def test_what_is_put_back_beside_a_refused_request_tries_no_more_than_the_profile_allows() -> None:
    made = plan(state(), {POOL: "8"}, pages_2M="7:8", remedies="none", timeout="5")
    assert made.refused
    [change] = made.changes
    assert isinstance(change, PoolChange)
    assert (change.after, change.remedies, change.timeout) == (8, (), 5.0)


def test_a_mount_is_taken_away_before_its_pool_shrinks() -> None:
    kept = {POOL: "0", MOUNT: "absent, no folder"}
    made = plan(state(pages=8, mounted="/dev/huge"), kept)
    assert settings(made) == [MOUNT, POOL]
    assert made.changes[0] == MountChange(
        MOUNT,
        "/dev/huge",
        HugetlbMount("/dev/huge"),
        NotMounted("/dev/huge", missing="/dev/huge"),
        "original value",
        mount=HUGE,
    )


def test_nothing_is_done_to_a_mount_that_is_there() -> None:
    assert plan(state(mounted="/dev/huge"), mount_2M="/dev/huge").changes == ()


@pytest.mark.parametrize(("asked", "restarted"), [("1", ("virtqemud",)), ("0", ())])
def test_libvirt_is_restarted_for_a_mount_only_when_asked(
    asked: str, restarted: tuple[str, ...]
) -> None:
    [change] = plan(state(), mount_2M="/dev/huge", restart_libvirt=asked).changes
    assert isinstance(change, MountChange)
    assert change.restart == restarted


def test_overcommit_is_set_and_put_back() -> None:
    file = f"/sys/kernel/mm/hugepages/hugepages-{M2}kB/nr_overcommit_hugepages"
    made = plan(state(), overcommit_2M="64")
    assert made.changes == (Change("overcommit_2M", file, "0", "64", "set by the profile"),)
    back = plan(state(overcommit=64), made.originals)
    assert back.changes == (Change("overcommit_2M", file, "64", "0", "original value"),)


def test_a_kernel_without_huge_pages_still_gets_the_rest() -> None:
    without = HugepagesState(transparent={"transparent_hugepages": "madvise"})
    asked = {"pages_2M": "0:8", "mount_2M": "/dev/huge", "overcommit_2M": "4"}
    made = plan(without, {}, transparent_hugepages="never", **asked)
    assert made.wanted == {"transparent_hugepages": "never"}
    assert settings(made) == ["transparent_hugepages"]
    assert made.missing == {"pages": "this kernel has no huge pages"}
    assert plan(without, transparent_hugepages="never").missing == {}


def test_what_is_refused_leaves_all_as_it_was() -> None:
    asked = {"pages_1G": "3:1", "transparent_hugepages": "never", "mount_2M": "/dev/huge"}
    made = plan(state(), {}, **asked)
    assert made.refused.keys() == {"pages_1G"}
    assert (made.changes, made.wanted, made.originals) == ((), {}, {})


@pytest.mark.parametrize(
    ("pool", "target", "growth"),
    [
        (Pool(0, M2, 10, 6, 0), 7, -3),
        (Pool(0, M2, 10, 6, 0), 3, -6),
        (Pool(0, M2, 10, 6, 2), 0, -4),
        (Pool(0, M2, 10, 2, 4), 0, 0),
        (Pool(0, M2, 10, 2, 4), 8, 0),
        (Pool(0, M2, 10, 2, 4), 12, 2),
    ],
    ids=[
        "free pages are given back",
        "mapped ones are not",
        "they become surplus in place of free ones",
        "there is nothing to give back",
        "surplus pages become the pool's",
        "and only the rest is taken",
    ],
)
def test_what_a_pool_takes_from_its_node(pool: Pool, target: int, growth: int) -> None:
    assert pool.growth(target) == growth


# --- single pools ---------------------------------------------------------------------------------


def pools(now: HugepagesState, **options: str) -> dict[str, PoolChange]:
    made = plan(now, None, **options)
    assert not made.refused
    return {one.setting: one for one in made.changes if isinstance(one, PoolChange)}


def test_a_pool_that_is_as_asked_is_not_touched() -> None:
    assert pools(state(pages=8), pages_2M="0:8") == {}


@pytest.mark.parametrize("pages", [1, 512])
def test_a_pool_that_grows_is_helped(pages: int) -> None:
    """The write waits for the kernel, so it is slow, also for one page."""
    grows = pools(state(), pages_2M=f"0:{pages}", timeout="9", on_partial="rollback")[POOL]
    assert (grows.before, grows.after, grows.slow) == (0, pages, True)
    assert (grows.remedies, grows.timeout, grows.rollback) == ((Remedy.COMPACT,), 9.0, True)


def test_one_that_shrinks_needs_no_help_and_the_smallest_is_not_split() -> None:
    larger = replace(state(pages=8), demotes={G1: M2})
    shrinks = pools(larger, pages_2M="0:2", on_partial="rollback")[POOL]
    assert (shrinks.before, shrinks.after, shrinks.slow) == (8, 2, True)
    assert (shrinks.remedies, shrinks.rollback, shrinks.demote) == ((), False, 0)


def test_larger_pages_that_were_changed_before_may_be_split_though_none_is_free() -> None:
    """They are free once they are put back."""
    now = replace(state(), demotes={G1: M2})
    lent = plan(now, {"pages_1G node0": "2"}, pages_2M="0:8", on_partial="demote")
    [grows] = [one for one in lent.changes if isinstance(one, PoolChange)]
    assert (grows.setting, grows.lenders) == (POOL, (G1,))
    assert pools(now, pages_2M="0:8", on_partial="demote")[POOL].lenders == ()


def test_pages_that_are_used_beyond_the_pool_are_said() -> None:
    used = replace(state(), pools={**state().pools, PoolSetting(0, M2): Pool(0, M2, 8, 2, 0)})
    assert plan(used, pages_2M="0:4").notes[0] == (
        "pages_2M node0: pending drain: 6 pages are in use, 2 more than the pool should have; the"
        " kernel frees them as guests stop"
    )
