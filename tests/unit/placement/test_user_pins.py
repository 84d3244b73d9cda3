# SPDX-License-Identifier: GPL-2.0-or-later
"""What owners have pinned: the owner wins, whatever others ask for."""

from __future__ import annotations

import pytest

from tests.unit.machines import GIB, cpus_of, guest, machine, planned
from tuned_virt.model.guest import Guest, UserPins
from tuned_virt.model.topology import Host
from tuned_virt.placement import PlacementKind, user_pins

EIGHT = machine(1, cores=8, threads=1, llcs=1)
"""One node of CPUs 0 to 7; CPU 0 is kept for housekeeping where anything is dedicated."""


def pinned(*cpus: int, vcpus: int = 2, name: str = "owner", **owned: object) -> Guest:
    """Each of its vCPUs may run on all of these CPUs."""
    own = UserPins(vcpus=dict.fromkeys(range(vcpus), frozenset(cpus)), **owned)  # type: ignore[arg-type]
    return guest(name, vcpus, owned=own)


def dedicated(host: Host, vcpus: int, *others: Guest) -> list[str]:
    return cpus_of(planned(host, guest("a", vcpus), *others, policy="dedicated")["a"])


def test_no_cpu_of_an_owners_range_is_dedicated() -> None:
    assert dedicated(EIGHT, 3, pinned(4, 5, 6, 7)) == ["1", "2", "3"]
    no_room = planned(EIGHT, guest("a", 4), pinned(4, 5, 6, 7), policy="dedicated")["a"]
    assert no_room.kind is PlacementKind.SHARED
    assert (
        "not dedicated: it needs 4 CPUs that can be dedicated; node 0 has the most (3)"
        in no_room.why
    )


def test_no_cpu_that_an_owner_has_for_one_vcpu_is_given_to_anybody() -> None:
    assert dedicated(EIGHT, 6, pinned(3, vcpus=1)) == ["1", "2", "4", "5", "6", "7"]
    floating = planned(EIGHT, guest("a", 2), pinned(3, vcpus=1))["a"]
    assert set(cpus_of(floating)) == {"0-2,4-7"}


def test_no_cpu_of_an_owners_emulator_or_iothread_is_dedicated() -> None:
    emulator = guest("e", 1, owned=UserPins(emulator=frozenset({1})))
    assert dedicated(EIGHT, 6, emulator) == ["2", "3", "4", "5", "6", "7"]
    iothread = guest("i", 1, owned=UserPins(iothreads={1: frozenset({7})}))
    assert dedicated(EIGHT, 6, iothread) == ["1", "2", "3", "4", "5", "6"]


def test_vcpus_in_an_owners_range_need_room_there() -> None:
    """On two nodes, since on one that nobody has divided all may float."""
    host = machine(2, cores=8, threads=1, llcs=1)
    owner = pinned(0, 1, 2, 3, vcpus=4)
    assert planned(host, owner, guest("a", 4))["a"].nodes == (1,)
    both = planned(host, owner, guest("a", 5), guest("b", 8))
    assert (both["b"].nodes, both["a"].kind) == ((1,), PlacementKind.UNPLACED)
    assert "node 0 has the most (4)" in both["a"].why


def test_a_vcpu_is_counted_by_its_part_on_each_node_of_its_range() -> None:
    found = user_pins.claims(machine(2, cores=4, threads=1, llcs=1), [pinned(2, 3, 4, vcpus=3)])
    assert found.taken == [0, 0]
    assert found.avoided == [0b1100, 0b0001]
    assert found.load == [pytest.approx(2), pytest.approx(1)]


def test_what_takes_nothing() -> None:
    everywhere = frozenset(range(8))
    for owned in (
        UserPins(vcpus={0: everywhere}),
        UserPins(vcpus={0: everywhere | {99}}),
        UserPins(vcpus={0: frozenset({99})}),
        UserPins(vcpus={5: frozenset({3})}),
        UserPins(emulator=everywhere),
    ):
        found = user_pins.claims(EIGHT, [guest("o", 2, owned=owned)])
        assert (found.taken, found.avoided, found.load) == ([0], [0], [0.0]), owned


def test_an_emulator_takes_no_cpu_alone_and_needs_none() -> None:
    found = user_pins.claims(EIGHT, [guest("e", 1, owned=UserPins(emulator=frozenset({5})))])
    assert (found.taken, found.avoided, found.load) == ([0], [1 << 5], [0.0])


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (guest("o", 1, manager="oVirt"), "oVirt manages it: observed only"),
        (pinned(1, 2), "its owner pinned its vCPUs"),
        (guest("o", 2, owned=UserPins(vcpus={1: frozenset({4})})), "its owner pinned its vCPUs"),
        (guest("o", 1, owned=UserPins(automatic=True)), "placement='auto': numad places it when"),
        (
            guest("o", 1, owned=UserPins(realtime=True)),
            "its owner has set real-time scheduling for its threads",
        ),
    ],
)
def test_what_makes_a_guest_its_owners(made: Guest, why: str) -> None:
    one = planned(EIGHT, made)[made.name]
    assert one.kind is PlacementKind.OWNER
    assert one.why.startswith(why)


def test_a_set_that_names_every_online_cpu_says_nothing() -> None:
    assert user_pins.reason(pinned(*range(8)), EIGHT) == ""
    assert user_pins.reason(pinned(*range(7)), EIGHT) != ""
    assert user_pins.reason(guest("o", 1, owned=UserPins(vcpus={0: frozenset()})), EIGHT) == ""


def test_an_owners_guest_is_shown_as_it_is() -> None:
    owned = UserPins(
        vcpus={0: frozenset({8, 9}), 1: frozenset({0}), 7: frozenset({1})},
        emulator=frozenset({0, 1}),
        iothreads={2: frozenset({3})},
        memory="strict",
        nodes=frozenset({1}),
    )
    one = planned(machine(), guest("o", 2, owned=owned))["o"]
    assert (one.guest, one.uuid, one.kind, one.nodes) == (
        "o",
        "uuid-o",
        PlacementKind.OWNER,
        (0, 1),
    )
    assert (one.vcpus, one.emulator, one.iothreads) == ({0: "8-9", 1: "0"}, "0-1", {2: "3"})
    assert one.memory is not None
    assert (one.memory.mode, one.memory.nodeset) == ("strict", "1")


def test_an_owners_guest_that_only_its_memory_places() -> None:
    auto = guest("o", 1, owned=UserPins(automatic=True, memory="strict", nodes=frozenset({1})))
    one = planned(machine(), auto)["o"]
    assert (one.nodes, one.vcpus, one.emulator, one.iothreads) == ((1,), {}, "", {})
    bare = planned(machine(), guest("o", 1, owned=UserPins(automatic=True)))["o"]
    assert (bare.nodes, bare.memory) == ((), None)


def test_cpus_that_are_not_there_are_on_no_node() -> None:
    one = planned(machine(), pinned(9, 99, vcpus=1))["owner"]
    assert (one.nodes, one.vcpus) == ((1,), {0: "9,99"})


def test_only_a_cpu_that_several_have_alone_is_a_conflict() -> None:
    host = machine()
    assert not list(user_pins.conflicts(host, [pinned(3, 4, name="a"), pinned(3, 4, name="b")]))
    assert not list(user_pins.conflicts(host, [pinned(3, vcpus=1), guest("b", 2)]))
    said = user_pins.conflicts(
        host,
        [
            pinned(9, vcpus=1, name="z"),
            pinned(3, vcpus=2, name="b"),
            guest("off", 1, owned=UserPins(vcpus={1: frozenset({9})})),
            pinned(9, vcpus=1, name="a"),
            pinned(5, vcpus=1, name="c"),
        ],
    )
    assert list(said) == ["CPU 3 is pinned by 2 vCPUs: b", "CPU 9 is pinned by 2 vCPUs: a, z"]


def test_a_guest_that_does_not_run_is_counted_where_its_owner_put_it() -> None:
    """8 GiB a node: 6 on node 0, or 3 on each, leave so much to others."""
    there = guest("o", 1, 6, owned=UserPins(automatic=True, nodes=frozenset({0})))
    assert planned(machine(), there, guest("a", 1, 2))["a"].nodes == (0,)
    assert planned(machine(), there, guest("a", 1, 2.1))["a"].nodes == (1,)
    both = guest("o", 1, 6, owned=UserPins(automatic=True, nodes=frozenset({0, 1})))
    assert planned(machine(), both, guest("a", 1, 5.0))["a"].nodes == (0,)
    assert len(planned(machine(), both, guest("a", 2, 5.1))["a"].nodes) == 2
    runs = guest("o", 1, 6, owned=UserPins(automatic=True), resident={0: 6 * GIB})
    assert planned(machine(), runs, guest("a", 1, 2.1))["a"].nodes == (1,)
