# SPDX-License-Identifier: GPL-2.0-or-later
"""Other people's hosts and the settings that an expert gives them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.audit.scenes import GIB, guest, host, numatune, pinned, scene
from tests.unit.recommend.hosts import (
    HUGE,
    HUGE_1G,
    RAM_SWAP,
    WINDOWS,
    cells,
    database,
    desktops,
    gaming,
    homelab,
    memnodes,
    nfv,
    passed,
    seen,
    x3d,
)
from tests.unit.seen import COSTLY
from tuned_virt.cli import recommend_file
from tuned_virt.frozen_dataclasses import replace
from tuned_virt.model.host_facts import Fact, NotKnown
from tuned_virt.recommend.decide import Recommendations, decide
from tuned_virt.recommend.situation import Situation

NOVA = """<metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'/>
</metadata>"""


def lines(situation: Situation) -> list[str]:
    return [f"{one.name}={one.value}" for one in decide(situation).settings]


def left(made: Recommendations, setting: str) -> str:
    [why] = [one.why for one in made.left if one.topic == setting]
    return why


PINNED_NFV = ["ksm_mode=off", "vm_numa_balancing=0", "hugepages_1G=0:16,1:16"]
AT_BOOT = ["hugepages_boot=auto", "hugepages_mount_1G=/dev/hugepages1G"]
DIRTY = "dirty_background_bytes=1073741824"

CASES = {
    "crowded VDI": (desktops(), ["ksm_mode=auto", "vm_overcommit=auto", DIRTY]),
    "one gaming guest": (
        gaming(),
        [
            "ksm_mode=off",
            "vm_dedicated=win11",
            "vm_isolation=host",
            "vm_prefer=cache",
            "hugepages_2M=guests",
        ],
    ),
    "one gaming guest, 1 GiB pages": (
        gaming(HUGE_1G),
        [
            "ksm_mode=off",
            "vm_dedicated=win11",
            "vm_isolation=host",
            "vm_prefer=cache",
            "hugepages_1G=0:16",
            "hugepages_boot=auto",
        ],
    ),
    "a database": (
        database(),
        ["ksm_mode=off", "hugepages_2M=0:8192,1:32768", "swappiness=1", DIRTY],
    ),
    "NFV": (
        nfv(),
        [
            "ksm_mode=off",
            "vm_dedicated=vnf0 vnf1",
            "vm_housekeeping=0-1,16-17",
            "vm_emulator=housekeeping",
            "hugepages_1G=0:16,1:16",
            *AT_BOOT,
            DIRTY,
        ],
    ),
    "NFV, pinned by its owner": (nfv(pins=True), [*PINNED_NFV, *AT_BOOT, DIRTY]),
    "a homelab": (homelab(), []),
    "no guest yet": (seen(scene()), []),
}


@pytest.mark.parametrize("case", CASES)
def test_hosts_and_their_settings(case: str) -> None:
    situation, wanted = CASES[case]
    assert lines(situation) == wanted


def test_evidence_has_numbers_and_each_line_a_source() -> None:
    made = [one for situation, _ in CASES.values() for one in decide(situation).settings]
    assert made
    for one in made:
        assert any(letter.isdigit() for letter in one.evidence), one
        assert one.source.startswith(("guide ", "https://")), one
        assert "\n" not in one.reason + one.evidence
    [crowded] = [one for one in decide(desktops()).settings if one.name == "vm_overcommit"]
    assert crowded.evidence == (
        "80 vCPUs on 32 CPUs, 2.5 for each; the vCPU that waits most waits 12 % of the time"
    )


def test_a_homelab_hears_why_the_rest_is_left() -> None:
    made = decide(homelab())
    assert left(made, "vm_policy") == "one NUMA node: node sets no pins, all memory is local"
    assert "50 % of the host's 64 GiB" in left(made, "ksm_mode")
    assert "keyboard and mouse" in left(made, "vm_dedicated")
    assert not any(one.short for one in made.left)


def test_a_gaming_guest_without_huge_pages_hears_how_to_get_them() -> None:
    made = decide(gaming(body=""))
    [step] = made.steps
    assert step.command == "virt-xml win11 --edit --memorybacking hugepages=yes"


def test_two_nodes_and_one_game_of_sixteen_threads() -> None:
    """A Threadripper 2950X with 32 GiB (a tuning guide of angrysysadmins.tech)."""
    on = host(nodes=2, cpus=16, gib=16, threads=2)
    windows = guest(
        name="win10", vcpus=8, gib=8, metadata=WINDOWS, devices=passed("0a:00.0"), body=HUGE
    )
    assert "vm_dedicated=win10" in lines(seen(scene(windows, on=on)))


def test_desktops_with_shared_cards_are_not_starved() -> None:
    """CPUs of their own only where the others keep enough."""
    game = guest(name="g", vcpus=6, gib=4, metadata=WINDOWS, devices=passed("0c:00.0"))
    others = [guest(name=f"o{at}", vcpus=4) for at in range(3)]
    crowded = decide(seen(scene(game, *others, on=host(cpus=8, gib=64))))
    assert "vm_dedicated" not in {one.name for one in crowded.settings}
    assert left(crowded, "vm_dedicated") == (
        "g would take 6 of 8 CPUs, and leave 2 to 12 vCPUs of others"
    )
    larger = decide(seen(scene(game, on=host(cpus=4, gib=64))))
    assert "finds no CPUs of their own for g" in left(larger, "vm_dedicated")


def test_a_hundred_guests_on_64_gib() -> None:
    """The story of wiki.xonex.eu: 100 guests on one host of 64 GiB; few are alike."""
    some = [guest(name=f"vm{at}", vcpus=1 + at % 3, gib=1 + at % 5) for at in range(100)]
    made = lines(seen(scene(*some, on=host(nodes=2, cpus=16, gib=32))))
    assert made == ["ksm_mode=auto", "vm_overcommit=auto"]


def test_pools_that_do_not_fit_are_told_and_not_set() -> None:
    made = decide(seen(scene(guest(name="big", gib=16, body=HUGE), on=host(gib=16))))
    assert not [one for one in made.settings if one.name.startswith("hugepages")]
    [short] = [one for one in made.left if one.short]
    assert short.why.endswith("beside what each node keeps: node 0 lacks 1.6 GiB")


def test_guests_that_name_no_node_are_spread_and_counted() -> None:
    """Two nodes of 386 GiB (github.com/ironcore-dev/libvirt-provider, issue 48)."""
    on = host(nodes=2, cpus=24, gib=386)
    free = [guest(name=f"v{at}", gib=100, body=HUGE_1G) for at in range(2)]
    assert "hugepages_1G=0:100,1:100" in lines(seen(scene(*free, on=on)))
    small = [guest(name=f"v{at}", gib=100, body=HUGE) for at in range(2)]
    assert "hugepages_2M=guests" in lines(seen(scene(*small, on=on)))
    own = guest(name="v", gib=100, body=HUGE + pinned("24-47", "24-47"))
    assert "hugepages_2M=1:51200" in lines(seen(scene(own, on=on)))


def test_strict_memory_for_what_names_no_node() -> None:
    vnf = guest(name="vnf", vcpus=4, gib=4, body=HUGE_1G, devices=passed("3b:02.0"))
    assert "vm_memory.vnf=strict" in lines(seen(scene(vnf, on=host(nodes=2, cpus=16, gib=64))))
    assert "vm_memory.vnf=strict" not in lines(seen(scene(vnf, on=host(cpus=16, gib=64))))


def test_swap_and_disks_and_transparent_huge_pages() -> None:
    plain = scene(guest(), thp="never")
    assert lines(seen(plain, swap_in_ram=RAM_SWAP)) == [
        "ksm_mode=off", "swappiness=auto", "thp=madvise",
    ]  # fmt: skip
    weighted = guest(body="<blkiotune><weight>200</weight></blkiotune>")
    [disk] = [one for one in decide(seen(scene(weighted))).left if "disk" in one.topic]
    assert "on NVMe disks or none" in disk.why
    rusty = seen(scene(weighted, backing={"sda": None}))
    assert "disk_host_backing=bfq" in lines(rusty)


def test_a_host_of_another_manager_gets_nothing() -> None:
    nova = decide(seen(scene(guest(metadata=NOVA, body=HUGE))))
    assert (nova.settings, nova.left, nova.steps) == ((), (), ())
    assert nova.nothing.startswith("OpenStack Nova places the guests of this host")
    assert decide(Situation(scene(), manager="Proxmox VE")).nothing.startswith("Proxmox VE places")


def test_a_guest_gets_its_own_profiles_settings() -> None:
    inside = seen(scene(on=host(gib=64)), in_guest=True, swap_in_ram=RAM_SWAP)
    made = decide(inside)
    assert made.profile == "virtual-guest-plus"
    assert lines(inside) == ["swappiness=auto", DIRTY]
    text = recommend_file.merge("", made.profile, made.settings)
    assert (len(text.added), text.refused) == (2, ())


def test_what_is_not_known_is_told() -> None:
    with pytest.raises(NotKnown):
        decide(Situation(replace(scene(), host=None)))
    alone = decide(seen(replace(scene(), without_guests="libvirt does not answer")))
    assert left(alone, "guests") == "not known: libvirt does not answer"


def test_odd_names_are_told_by_uuid() -> None:
    base = gaming()
    named = replace(base.guests[0], guest=replace(base.guests[0].guest, name="my # game*"))
    odd = replace(base, scene=replace(base.scene, guests=(named,)))
    assert "vm_dedicated=0000000a-0000-4000-8000-000000000000" in lines(odd)


# --- any host, any guests -------------------------------------------------------------------------

BODIES = ("", HUGE, HUGE_1G, HUGE + numatune("strict", "0"), pinned("0", "1"))
GUESTS = st.builds(
    guest,
    name=st.sampled_from(["a", "db 1", "x=#y", "${z}", "win-11", "!b", "-c", "ü", "7"]),
    vcpus=st.sampled_from([1, 2, 4, 8, 40]),
    gib=st.sampled_from([0.5, 2, 16, 100]),
    metadata=st.sampled_from([WINDOWS, "", NOVA]),
    devices=st.sampled_from(["", passed("0c:00.0", "0c:00.1"), passed("3b:02.1")]),
    body=st.sampled_from(BODIES),
) | st.just(
    guest(name="v", vcpus=8, gib=16, cpu=cells(8, 8, vcpus=4), body=HUGE_1G + memnodes(0, 0))
)
HOSTS = st.builds(
    host,
    nodes=st.sampled_from([1, 2, 4]),
    cpus=st.sampled_from([2, 16]),
    gib=st.sampled_from([1, 16, 256]),
    isolated=st.sampled_from([frozenset(), frozenset({1})]),
)


@given(st.lists(GUESTS, max_size=6), HOSTS, st.booleans(), st.sampled_from([None, 0, 9 * GIB]))
@COSTLY
def test_any_file_is_right_and_stays_as_it_is(
    guests: list[str], on: object, inside: bool, swap: int | None
) -> None:
    made = scene(*guests, on=x3d(on) if inside else on)  # type: ignore[arg-type]
    facts = replace(made.facts, swap=Fact(swap, "not known"))
    decision = decide(seen(replace(made, facts=facts), in_guest=inside))
    first = recommend_file.merge("", decision.profile, decision.settings)
    assert (first.refused, first.kept, first.errors) == ((), (), ())
    assert recommend_file.check(first.text, decision.profile) == ()
    again = recommend_file.merge(first.text, decision.profile, decision.settings)
    assert (again.text, again.added) == (first.text, ())
