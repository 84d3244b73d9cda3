# SPDX-License-Identifier: GPL-2.0-or-later
"""The planner's options, for a selection of guests or for one."""

from __future__ import annotations

import pytest

from tests.unit.machines import guest, machine
from tuned_virt.core.options import BadOptions
from tuned_virt.placement import PlacementKind, plan, policy
from tuned_virt.placement.policy import (
    EmulatorMode,
    IoThreadMode,
    MemoryMode,
    PlacementMode,
    PlacementPolicy,
    Smt,
    changed,
    ignored_wishes,
    parse,
    policy_for,
    unselected,
)


def test_every_option_has_its_field() -> None:
    assert parse(
        {
            "policy": "dedicated",
            "smt": "require",
            "housekeeping": "0-1,32",
            "emulator": "shared-with-vcpu0",
            "iothreads": "housekeeping",
            "memory": "strict",
            "overcommit": "1.5",
            "rebalance": "7",
        }
    ) == PlacementPolicy(
        PlacementMode.DEDICATED,
        Smt.REQUIRE,
        frozenset({0, 1, 32}),
        EmulatorMode.VCPU0,
        IoThreadMode.HOUSEKEEPING,
        MemoryMode.STRICT,
        1.5,
        7,
    )


def test_what_is_shown_as_the_default_is_the_default() -> None:
    shown = {name: about.default for name, about in policy.OPTIONS.items()}
    assert parse(shown) == parse({}) == parse(dict.fromkeys(shown, "")) == PlacementPolicy()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("overcommit", "auto", None),
        ("overcommit", "1", 1.0),
        ("overcommit", "64", 64.0),
        ("overcommit", "64.000", 64.0),
        ("overcommit", "1.125", 1.125),
        ("rebalance", "never", 0),
        ("rebalance", "0", 0),
        ("rebalance", "999", 999),
        ("housekeeping", "auto", None),
        ("housekeeping", "3", frozenset({3})),
    ],
)
def test_what_is_valid(name: str, text: str, value: object) -> None:
    assert getattr(
        changed(
            PlacementPolicy(housekeeping=frozenset({9}), overcommit=2.0, rebalance=4), {name: text}
        ),
        name,
    ) == (value)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("overcommit", "0.999", "auto, or a number from 1 to 64, such as 1.5"),
        ("overcommit", "64.001", "auto, or a number from 1 to 64, such as 1.5"),
        ("overcommit", "1.1234", "auto, or a number from 1 to 64, such as 1.5"),
        ("overcommit", "1,5", "auto, or a number from 1 to 64, such as 1.5"),
        ("overcommit", "٣", "auto, or a number from 1 to 64, such as 1.5"),
        ("rebalance", "1000", "never, or how many guests one plan may move (0 to 999)"),
        ("rebalance", "-1", "never, or how many guests one plan may move (0 to 999)"),
        ("rebalance", "٣", "never, or how many guests one plan may move (0 to 999)"),
        ("housekeeping", "0-", "auto, or CPUs such as 0-1,32 ("),
        ("policy", "Node", "one of node, dedicated, none"),
        ("smt", "", None),
        ("smt", "off", "one of prefer, require, isolate"),
        (
            "pinning",
            "x",
            "no such option; use one of policy, smt, housekeeping, emulator, iothreads",
        ),
    ],
)
def test_what_is_not(name: str, text: str, why: str | None) -> None:
    if why is None:
        assert parse({name: text}) == PlacementPolicy()
        return
    with pytest.raises(BadOptions) as caught:
        parse({name: text})
    assert str(caught.value).startswith(f"option '{name}': '{text}' is not valid: {why}")


def test_all_that_is_wrong_is_named() -> None:
    with pytest.raises(BadOptions) as caught:
        parse({"smt": "x", "memory": "move", "overcommit": "y"})
    assert [error.option for error in caught.value.errors] == ["smt", "overcommit"]


def test_options_come_on_top_of_what_there_is() -> None:
    base = parse({"policy": "dedicated", "overcommit": "2"})
    assert changed(base, {"smt": "isolate"}) == PlacementPolicy(
        policy=PlacementMode.DEDICATED, smt=Smt.ISOLATE, overcommit=2.0
    )


def test_a_guest_may_wish_what_concerns_itself_alone() -> None:
    base = parse({"overcommit": "2"})
    assert policy_for(guest("a", 1), base) is base
    own = {"policy": "dedicated", "smt": "isolate", "emulator": "housekeeping",
           "iothreads": "emulator", "memory": "none"}  # fmt: skip
    assert policy_for(guest("a", 1, wishes=own), base) == PlacementPolicy(
        PlacementMode.DEDICATED,
        Smt.ISOLATE,
        None,
        EmulatorMode.HOUSEKEEPING,
        IoThreadMode.EMULATOR,
        MemoryMode.NONE,
        2.0,
    )
    for other in ("housekeeping", "overcommit", "rebalance"):
        with pytest.raises(BadOptions, match="use one of policy, smt, emulator, iothreads, memory"):
            policy_for(guest("a", 1, wishes={other: "1"}), base)


def test_the_administrator_says_whose_metadata_counts() -> None:
    """A tenant who writes metadata alone takes no CPUs from its neighbours."""
    dedicated, floats, none = PlacementMode.DEDICATED, PlacementMode.NODE, PlacementMode.NONE
    takes = guest("db1", 1, wishes={"policy": "dedicated", "smt": "isolate"})
    opts_out = guest("web1", 1, wishes={"policy": "none"})
    for wishes, taken, opted_out in (
        ("", dedicated, none),
        ("all", dedicated, none),
        ("opt-out", floats, none),
        ("none", floats, floats),
        ("db* !db-test", dedicated, floats),
        (f"{takes.uuid},{opts_out.uuid}", dedicated, none),
        ("!db1", floats, none),
    ):
        base = parse({"wishes": wishes})
        assert policy_for(takes, base).policy is taken, wishes
        assert policy_for(opts_out, base).policy is opted_out, wishes
        said = "" if taken is dedicated else f"policy=dedicated, smt=isolate (wishes={wishes})"
        assert ignored_wishes(takes, base) == said
        assert bool(ignored_wishes(opts_out, base)) == (opted_out is floats)
    with pytest.raises(BadOptions):
        policy_for(guest("a", 1, wishes={"wishes": "all"}), parse({}))
    many = guest("a", 1, wishes={f"x{number}": "y" * 99 for number in range(1000)})
    assert ignored_wishes(many, parse({"wishes": "none"})).endswith("… and 995 more (wishes=none)")


def test_groups_of_guests_have_a_policy_of_their_own() -> None:
    """The last that selects a guest counts; then its metadata, as far as that counts."""
    base = parse(
        {
            "policy.db*": "dedicated",
            "dedicated": "gaming, win*",
            "policy.db-test !db-test2": "node",
            "smt.db* gaming": "isolate",
            "memory.win*": "none",
            "emulator.x": "housekeeping",
            "iothreads.x": "emulator",
        }
    )
    found = {
        name: policy_for(guest(name, 1), base) for name in ("gaming", "db1", "db-test", "win1", "x")
    }
    assert {name for name, one in found.items() if one.policy is PlacementMode.DEDICATED} == {
        *("gaming", "db1", "win1")
    }
    assert {name for name, one in found.items() if one.smt is Smt.ISOLATE} == {
        *("gaming", "db1", "db-test")
    }
    assert [name for name, one in found.items() if one.memory is MemoryMode.NONE] == ["win1"]
    assert (found["x"].emulator, found["x"].iothreads) == (
        EmulatorMode.HOUSEKEEPING,
        IoThreadMode.EMULATOR,
    )
    assert not any(one.groups for one in found.values())
    wishes = guest("db1", 1, wishes={"policy": "none"})
    assert policy_for(wishes, base).policy is PlacementMode.NONE
    assert policy_for(guest("db1", 1), changed(base, {"policy": "node"})).policy is (
        PlacementMode.NODE
    )
    by_uuid = guest("vm", 1)
    named = parse({f"policy.{by_uuid.uuid}": "dedicated"})
    assert policy_for(by_uuid, named).policy is PlacementMode.DEDICATED
    with pytest.raises(BadOptions) as caught:
        parse({"policy.db*": "dedicate", "overcommit.db*": "2", "policy.": "node"})
    assert [error.option for error in caught.value.errors] == [
        *("policy.db*", "overcommit.db*", "policy.")
    ]


def test_names_that_select_nobody_who_runs_are_said() -> None:
    """A misspelt name is nobody's; one of a guest that does not run yet is the same."""
    policies = [parse({"dedicated": "gamign db*", "smt.u-1 !x": "isolate"}), parse({})]
    running = [("gaming", "u-1"), ("db1", "u-2")]
    said = "no running guest is selected by gamign (policy=dedicated)"
    assert unselected(policies, running) == said
    assert unselected(policies, []).endswith("db* (policy=dedicated), u-1 (smt=isolate)")
    assert unselected([parse({})], []) == ""


def test_what_is_no_name_of_a_guest_is_refused() -> None:
    for option, text in (
        *(
            ("dedicated", text)
            for text in ("'gaming'", 'gaming "db 1"', "all", "yes", "None", "a\tb")
        ),
        *(("wishes", text) for text in ("opt_out", "optout", "al", "non", "no", "0", "'db*'")),
    ):
        with pytest.raises(BadOptions) as caught:
            parse({option: text})
        assert [error.option for error in caught.value.errors] == [option], text
    assert parse({"wishes": "nobody al[l]"}).wishes == "nobody al[l]"


def test_a_group_alone_gets_cpus_of_its_own() -> None:
    made = plan(
        machine(), [guest("gaming", 2), guest("web", 2)], parse({"dedicated": "gaming"}), {}
    )
    kinds = {one.guest: one.kind for one in made.placements}
    assert kinds == {"gaming": PlacementKind.DEDICATED, "web": PlacementKind.SHARED}


def test_no_wish_shrinks_a_neighbour_where_metadata_is_not_used() -> None:
    host = machine()
    neighbour = guest("neighbour", 2)
    tenants = [guest(name, 3, wishes={"policy": "dedicated", "smt": "isolate"}) for name in "ab"]
    alone = plan(host, [neighbour], parse({}), {})
    beside = plan(host, [neighbour, *tenants], parse({"wishes": "opt-out", "overcommit": "2"}), {})
    before, after = (
        next(one for one in made.placements if one.guest == "neighbour") for made in (alone, beside)
    )
    assert {len(cpus) for cpus in after.vcpus.values()} == {
        len(cpus) for cpus in before.vcpus.values()
    }
    said = [warning for warning in beside.warnings if "its metadata does not count" in warning]
    assert len(said) == 2
    ignored = "policy=dedicated, smt=isolate (wishes=opt-out)"
    assert [one.ignored for one in beside.placements] == [ignored, ignored, ""]


@pytest.mark.parametrize(("written", "quoted"), [("x" * 60, "x" * 60), ("x" * 61, "x" * 60 + "…")])
def test_a_wish_is_quoted_up_to_60_characters(written: str, quoted: str) -> None:
    with pytest.raises(BadOptions, match=f"'{quoted}'"):
        policy_for(guest("a", 1, wishes={"policy": written}), PlacementPolicy())
