# SPDX-License-Identifier: GPL-2.0-or-later
"""What a node keeps for itself, and what its pools may take."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from tests.unit.hugetlb import G1, M2
from tuned_virt.model.topology.huge_pages import Pool
from tuned_virt.plugins import hugepages_numa
from tuned_virt.plugins.hugepages_numa import planner, targets
from tuned_virt.plugins.hugepages_numa.demand import PageDemand
from tuned_virt.plugins.hugepages_numa.planner import PoolChange
from tuned_virt.plugins.hugepages_numa.setting_types import Pages, PoolSetting, Setting, Value
from tuned_virt.plugins.hugepages_numa.state import HugepagesState, NodeFreeMemory

GIB = 1 << 20


def state(total: int, available: int, *pools: Pool, **more: object) -> HugepagesState:
    """One node of so many GiB."""
    own = {PoolSetting(0, M2): Pool(0, M2, 0, 0, 0), PoolSetting(0, G1): Pool(0, G1, 0, 0, 0)}
    own.update({PoolSetting(pool.node, pool.size_kib): pool for pool in pools})
    nodes = {0: NodeFreeMemory(total * GIB, available * GIB, 0)}
    return HugepagesState(pools=own, nodes=nodes, demotes={G1: M2}, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("total", "kept"),
    [(10, 1), (80, 8), (81, 8), (1024, 8), (4096, 8)],
    ids=["a tenth", "both", "8 GiB", "8 GiB of 1 TiB", "8 GiB of 4 TiB"],
)
def test_a_node_keeps_the_lesser_of_a_tenth_and_8_gib(total: int, kept: int) -> None:
    assert targets.reserve_kib(hugepages_numa.parse({}), total * GIB) == kept * GIB


@pytest.mark.parametrize(
    ("asked", "kept_mib"), [("25%", 256), ("2048", 2048), ("0", 0), ("100%", 1024)]
)
def test_or_what_was_asked_for(asked: str, kept_mib: int) -> None:
    policy = hugepages_numa.parse({"reserve_free": asked})
    assert targets.reserve_kib(policy, GIB) == kept_mib * 1024


@pytest.mark.parametrize(("pages", "taken"), [(992, True), (993, False)])
def test_pools_take_all_but_the_reserve(pages: int, taken: bool) -> None:
    """Of 1 TiB with 1000 GiB free, 992 may be taken."""
    made = planner.plan(hugepages_numa.parse({"pages_1G": f"0:{pages}"}), state(1024, 1000), {})
    assert bool(made.changes) is taken
    assert made.refused == (
        {}
        if taken
        else {
            "node0": "993 pages of 1G (0 exist) need 1016832 MiB more; the node can give"
            " 1015808 MiB"
            " (1024000 free or cache, less reserve_free 8192)"
        }
    )


def changes(now: HugepagesState, **options: str) -> dict[str, PoolChange]:
    made = planner.plan(hugepages_numa.parse(options), now, {})
    assert not made.refused
    return {one.setting: one for one in made.changes if isinstance(one, PoolChange)}


@pytest.mark.parametrize(
    ("free", "asked", "demoted"),
    [
        (4, {"pages_1G": "0:0", "pages_2M": "0:2048"}, 4),
        (1, {"pages_1G": "0:0", "pages_2M": "0:2048"}, 1),
        (0, {"pages_1G": "0:0", "pages_2M": "0:2048"}, 0),
        (4, {"pages_1G": "0:3", "pages_2M": "0:2048"}, 1),
        (4, {"pages_1G": "0:0", "pages_2M": "0:1024"}, 2),
        (4, {"pages_1G": "0:0", "pages_2M": "0:1023"}, 1),
        (4, {"pages_1G": "0:0"}, 0),
    ],
    ids=[
        "all that is given back",
        "only free pages can be split",
        "none is free",
        "no more than the pool gives back",
        "no more than the smaller pool takes",
        "whole pages of it",
        "no smaller pool grows",
    ],
)
def test_pages_are_split_for_the_next_smaller_size(
    free: int, asked: dict[str, str], demoted: int
) -> None:
    now = state(64, 50, Pool(0, G1, 4, free, 0))
    assert changes(now, **asked)["pages_1G node0"].demote == demoted


def test_a_smaller_pool_that_shrinks_too_is_split_nothing() -> None:
    now = state(64, 50, Pool(0, G1, 4, 4, 0), Pool(0, M2, 512, 512, 0))
    assert changes(now, pages_1G="0:0", pages_2M="0:0")["pages_1G node0"].demote == 0


# --- pools for guests -----------------------------------------------------------------------------


def for_guests(
    now: HugepagesState, **options: str
) -> tuple[dict[PoolSetting, int], tuple[str, ...]]:
    return targets.pools(hugepages_numa.parse(options), now)


def test_pools_for_guests_grow_with_headroom_and_never_shrink() -> None:
    now = state(
        64, 50, Pool(0, M2, 100, 100, 0), demand={PoolSetting(0, M2): 90, PoolSetting(0, G1): 4}
    )
    assert for_guests(now, pages_2M="guests") == ({PoolSetting(0, M2): 100}, ())
    assert for_guests(now, pages_2M="guests", headroom="50%") == ({PoolSetting(0, M2): 135}, ())
    assert for_guests(now, pages_2M="guests", headroom="100") == ({PoolSetting(0, M2): 140}, ())
    assert for_guests(now, pages_1G="guests", headroom="1") == ({PoolSetting(0, G1): 5}, ())
    assert for_guests(now, pages_1G="guests", headroom="10%") == ({PoolSetting(0, G1): 5}, ())
    assert for_guests(now, pages_1G="0:7") == ({PoolSetting(0, G1): 7}, ())


def test_what_nobody_asks_for_stays() -> None:
    now = state(64, 50, Pool(0, M2, 100, 100, 0))
    assert for_guests(now, pages_2M="guests", headroom="1000") == ({PoolSetting(0, M2): 100}, ())


@pytest.mark.parametrize(("asked", "given"), [(8, 8), (9, 8)])
def test_pools_for_guests_leave_the_reserve(asked: int, given: int) -> None:
    """Of 20 GiB 10 are free, and 2 are kept."""
    now = state(20, 10, demand={PoolSetting(0, G1): asked})
    pages, notes = for_guests(now, pages_1G="guests")
    assert pages == {PoolSetting(0, G1): given}
    assert notes == (
        ()
        if asked == given
        else ("pages_1G node0: guests request 9 pages, with headroom 9; the node can spare 8",)
    )


def test_larger_pages_come_first_and_named_ones_before() -> None:
    """10 GiB are free, of which 2 are kept."""
    both = state(20, 10, demand={PoolSetting(0, G1): 6, PoolSetting(0, M2): 1536})
    pages, notes = for_guests(both, pages_1G="guests", pages_2M="guests")
    assert pages == {PoolSetting(0, G1): 6, PoolSetting(0, M2): 1024}
    assert len(notes) == 1
    pages, notes = for_guests(both, pages_1G="0:7", pages_2M="guests")
    assert pages == {PoolSetting(0, G1): 7, PoolSetting(0, M2): 512}
    assert notes[0].startswith("pages_2M node0: guests request 1536 pages, with headroom 1536;")


def test_a_node_under_its_reserve_gives_nothing_more() -> None:
    now = state(20, 1, Pool(0, G1, 3, 3, 0), demand={PoolSetting(0, G1): 5})
    assert for_guests(now, pages_1G="guests")[0] == {PoolSetting(0, G1): 3}


def test_a_remark_of_the_state_is_noted_where_guests_are_asked() -> None:
    now = state(20, 10, remark="libvirt does not answer")
    assert for_guests(now, pages_1G="guests")[1] == ("libvirt does not answer",)
    assert for_guests(now, pages_1G="0:1")[1] == ()


# --- what a machine does not have -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "name", "why"),
    [
        (
            {"pages_16M": "0:1"},
            "pages_16M",
            "'0:1': huge pages of this machine are of 2M, 1G",
        ),
        ({"pages_1G": "3:1"}, "pages_1G", "'3:1': nodes with memory here are 0"),
        ({"mount_16M": "/x"}, "of 16M", "huge pages of this machine are of 2M, 1G"),
        ({"overcommit_16M": "5"}, "of 16M", "huge pages of this machine are of 2M, 1G"),
        (
            {"overcommit_1G": "5"},
            "overcommit_1G",
            "'5': the kernel has no surplus pages of 1G",
        ),
    ],
)
def test_what_is_impossible_is_said(options: dict[str, str], name: str, why: str) -> None:
    found = dict(targets.impossible(hugepages_numa.parse(options), state(8, 8)))
    assert found == {name: why}


def test_what_is_possible() -> None:
    asked = {"pages_1G": "0:1", "pages_2M": "all:5", "mount_2M": "/x", "overcommit_2M": "5"}
    assert not dict(targets.impossible(hugepages_numa.parse(asked), state(8, 8)))
    bare = HugepagesState()
    assert dict(targets.impossible(hugepages_numa.parse({"mount_2M": "/x"}), bare)) == {
        "of 2M": "huge pages of this machine are of none"
    }


# --- pages lent by larger sizes -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool", "options", "originals", "lent"),
    [
        (Pool(0, G1, 4, 4, 0), {}, (), True),
        (Pool(0, G1, 4, 0, 0), {}, (), False),
        (Pool(0, G1, 4, 0, 0), {}, {PoolSetting(0, G1)}, True),
        (Pool(0, G1, 4, 4, 0), {"pages_1G": "0:4"}, (), False),
        (Pool(0, G1, 4, 4, 0), {"on_partial": "keep"}, (), False),
    ],
    ids=["free", "none is free", "ours to begin with", "set by the profile", "not to be split"],
)
def test_who_lends(
    pool: Pool, options: dict[str, str], originals: Collection[Setting], lent: bool
) -> None:
    asked = hugepages_numa.parse({"pages_2M": "0:9", "on_partial": "demote", **options})
    pages, _ = targets.pools(asked, state(64, 50, pool))
    found = dict(targets.lenders(asked, state(64, 50, pool), pages, originals))
    assert found == ({PoolSetting(0, M2): (G1,)} if lent else {})


def test_growth_counts_what_is_given_back() -> None:
    now = state(64, 50, Pool(0, G1, 4, 4, 0))
    assert targets.growth_kib(now, {PoolSetting(0, G1): 1, PoolSetting(0, M2): 512}, 0) == -2 * GIB
    assert targets.growth_kib(now, {PoolSetting(0, G1): 6, PoolSetting(0, M2): 512}, 0) == 3 * GIB
    assert targets.growth_kib(now, {PoolSetting(0, G1): 6}, 1) == 0


def test_pools_of_guests_shrink_to_what_was_asked_lately_and_to_what_they_were_at_first() -> None:
    policy = hugepages_numa.parse({"pages_2M": "guests", "headroom": "0"})
    pool = PoolSetting(0, M2)
    cases: tuple[tuple[Pages | None, dict[Setting, Value], int], ...] = (
        (None, {}, 5),
        ({}, {}, 5),
        ({}, {pool: 0}, 0),
        ({}, {pool: 9}, 5),
        ({pool: 3}, {pool: 0}, 3),
    )
    for lately, originals, wanted in cases:
        now = state(8, 8, Pool(0, M2, 5, 5, 0), lately=lately)
        assert targets.pools(policy, now, originals) == ({pool: wanted}, ()), (lately, originals)


def test_guests_that_could_not_start_with_the_pages_added_up_and_what_helps() -> None:
    three = PageDemand(M2, 3 * M2, ())
    now = state(8, 8, Pool(0, M2, 1, 1, 0), requests=(("a", (three, three)),), overcommit={M2: 2})
    said = "it could not start: 6 pages are requested, 3 are free"
    for options, hint in (
        ({}, "; pages_2M=guests requests them"),
        ({"pages_2M": "guests"}, ""),
    ):
        policy = hugepages_numa.parse(options)
        assert list(targets.unserved(policy, now, {})) == [("pages_2M for guest a", said + hint)]
    few = replace(now, overcommit={})
    assert "1 are free" in next(targets.unserved(hugepages_numa.parse({}), few, {}))[1]


def test_a_size_that_the_command_line_leaves_out() -> None:
    policy = hugepages_numa.parse({"pages_1G": "0:1"})
    small = state(8, 8)
    only = {pool: found for pool, found in small.pools.items() if pool.size_kib == M2}
    for cmdline, more in (
        ("quiet", ""),
        (
            "default_hugepagesz=2M",
            "; default_hugepagesz=2M on its command line leaves out others: add hugepagesz=1G",
        ),
    ):
        [(_, said)] = targets.impossible(policy, replace(small, pools=only, cmdline=cmdline))
        assert said == f"'0:1': huge pages of this machine are of 2M{more}"
