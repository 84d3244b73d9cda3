# SPDX-License-Identifier: GPL-2.0-or-later
"""From the weights asked for and those that guests have to a plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tuned_virt.core.options import BadOptions, Section
from tuned_virt.core.plan import Change
from tuned_virt.libvirt_api.guest_weights import Weights
from tuned_virt.plugins.vm_blkio import planner
from tuned_virt.plugins.vm_blkio.planner import (
    WeightAddress,
    WeightState,
    address,
    decide,
    device_setting,
    key,
    why_gone,
)
from tuned_virt.plugins.vm_blkio.policy import WeightPolicy, WeightRule, parse, parse_sections

WEB = Weights("u.1", 7, "web", 100, {"/dev/sdb": 300})
DB = Weights("u2", 8, "db", 500)
SDA = {"/dev/sda": 17}
ON_SDA = "web#u.1.7/device_weight /dev/sda#17"


def state(*guests: Weights, **more: object) -> WeightState:
    kinds: dict[str, object] = {"weighing": frozenset({"sda"}), **more}
    return WeightState(guests, **kinds)  # type: ignore[arg-type]


def test_a_setting_names_the_guest_and_its_run() -> None:
    assert key(WEB) == "web#u.1.7"
    odd = replace(WEB, name="a/b#c\n")
    assert key(odd) == "a?b?c?#u.1.7"
    for guest in (WEB, odd):
        assert address(f"{key(guest)}/blkio_weight") == WeightAddress("u.1", 7)
        for path in ("/dev/a/b#1 c", "/dev/sda"):
            assert address(f"{key(guest)}/device_weight {path}") == WeightAddress("u.1", 7, path)
            assert address(device_setting(guest, path, 17)) == WeightAddress("u.1", 7, path, 17)


def test_what_guests_have() -> None:
    assert state(WEB, DB, replace(DB, uuid="u3", weight=None), disks=SDA).weights == {
        "web#u.1.7/blkio_weight": 100,
        "web#u.1.7/device_weight /dev/sda#17": 0,
        "web#u.1.7/device_weight /dev/sdb": 300,
        "db#u2.8/blkio_weight": 500,
        "db#u2.8/device_weight /dev/sda#17": 0,
    }


def test_a_plan() -> None:
    asked = parse({"blkio_weight": "800", "device_weights": "/dev/sda,200"})
    name = "web#u.1.7/blkio_weight"
    on_disk = ON_SDA
    made = decide(asked, state(WEB, disks=SDA), {})
    assert made.changes == (
        Change(name, name, 100, 800, "set by the profile"),
        Change(on_disk, on_disk, 0, 200, "set by the profile"),
    )
    assert made.originals == {name: "100", on_disk: "0"}
    assert made.wanted == {name: "800", on_disk: "200"}
    assert (made.refused, made.pending, made.notes) == ({}, {}, ())


def test_what_is_right_is_not_written_and_its_original_stays() -> None:
    name = "web#u.1.7/blkio_weight"
    made = decide(parse({"blkio_weight": "100"}), state(WEB), {name: "500"})
    assert (made.changes, made.originals, made.wanted) == ((), {name: "500"}, {name: "100"})


def test_the_way_back() -> None:
    name = "web#u.1.7/blkio_weight"
    gone = "old#u9.1/blkio_weight"
    on_disk = "web#u.1.7/device_weight /dev/sdx"
    made = decide(WeightPolicy(), state(WEB), {name: "500", gone: "500", on_disk: "0"})
    assert made.changes == (Change(name, name, 100, 500, "original value"),)
    assert (made.pending, made.notes) == ({}, ())
    lost = decide(WeightPolicy(), state(unavailable="libvirt is gone"), {name: "500"})
    assert lost.pending == {name: "libvirt is gone"}
    asked = decide(
        parse({"blkio_weight": "9" * 2}), state(unavailable="libvirt is gone"), {name: "500"}
    )
    assert (asked.originals, asked.pending) == ({name: "500"}, {}), "nothing is to be put back"
    assert asked.notes == ("guests are unknown: libvirt is gone",)
    assert decide(WeightPolicy(), state(unavailable="libvirt is gone"), {}).notes == ()


def test_weights_that_a_silent_libvirt_has_not_set_fail_verify() -> None:
    """It is there, so guests run that have not what was asked for; they are planned again later."""
    silent = state(unavailable="libvirtd does not answer", silent=True)
    made = decide(parse({"blkio_weight": "300"}), silent, {"web#u.1.7/blkio_weight": "500"})
    assert made.refused == {"weights": "guests are unknown: libvirtd does not answer"}
    assert (made.originals, made.notes) == ({"web#u.1.7/blkio_weight": "500"}, ())
    assert decide(WeightPolicy(), silent, {}).refused == {}


def test_the_first_section_that_names_a_guest_decides() -> None:
    policy = parse_sections(
        [
            Section("a", {}, "u2"),
            Section("b", {"blkio_weight": "700"}, "web* db"),
            Section("c", {"blkio_weight": "600"}),
        ]
    )
    other = replace(DB, uuid="u3", name="other")
    made = decide(policy, state(DB, WEB, other), {})
    assert made.wanted == {"web#u.1.7/blkio_weight": "700", "other#u3.8/blkio_weight": "600"}


def test_weights_of_the_owner_stay_and_the_next_guest_has_its_turn() -> None:
    own = replace(WEB, owned=True, name="w\n")
    made = decide(parse({"blkio_weight": "700"}), state(own, DB), {})
    assert made.wanted.keys() == {"db#u2.8/blkio_weight"}
    assert made.notes == ("w?: not changed, its XML sets weights itself",)


def test_what_cannot_be_set() -> None:
    asked = parse({"blkio_weight": "700", "device_weights": "/dev/sda,20"})
    without = decide(asked, state(WEB, controller=False), {})
    why = "no cgroup controller holds weights: neither io (cgroup v2) nor blkio (v1) is there"
    assert without.refused == {
        "web#u.1.7/blkio_weight": why,
        "web#u.1.7/device_weight /dev/sda": why,
    }
    assert (without.changes, without.wanted, without.notes) == ((), {}, ())
    untold = decide(asked, state(replace(WEB, weight=None), DB, disks=SDA), {})
    why = "libvirt has no I/O cgroup for this guest: see cgroup_controllers in libvirt's qemu.conf"
    assert untold.refused == {
        "web#u.1.7/blkio_weight": why,
        "web#u.1.7/device_weight /dev/sda#17": why,
    }
    assert untold.wanted.keys() == {
        "db#u2.8/blkio_weight", "db#u2.8/device_weight /dev/sda#17",
    }  # fmt: skip


def test_weights_that_nothing_heeds_are_said() -> None:
    asked = parse({"blkio_weight": "700"})
    assert decide(asked, state(WEB, weighing=frozenset()), {}).notes == (
        "weights have no effect: no disk has the scheduler bfq, and io.cost.qos is not enabled;"
        " set host_backing=bfq in [blk_elevator_virt]",
    )
    assert decide(asked, state(weighing=frozenset()), {}).notes == ()


def test_a_device_that_libvirt_does_not_tell_has_no_weight() -> None:
    name = "web#u.1.7/device_weight /dev/sdz"
    made = decide(parse({"device_weights": "/dev/sdz,20"}), state(WEB), {})
    assert made.originals == {name: "0"}
    assert made.changes == (Change(name, name, 0, 20, "set by the profile"),)


# --- disks: a path that leads to another one now --------------------------------------------------

HAS = replace(WEB, devices={"/dev/sda": 200})
REPLACED = "/dev/sda is another device now: it was removed and added since"


def test_a_disks_original_is_restored_on_that_disk_alone() -> None:
    for disks, back in (({"/dev/sda": 17}, [300]), ({"/dev/sda": 18}, []), ({"/dev/sda": 0}, [])):
        made = decide(WeightPolicy(), state(HAS, disks=disks), {ON_SDA: "300"})
        assert [change.after for change in made.changes] == back
        assert made.pending == {}
    assert made.notes == ()


def test_that_it_is_not_restored_is_said() -> None:
    there = state(HAS, disks={"/dev/sda": 18})
    made = decide(WeightPolicy(), there, {ON_SDA: "300"})
    assert made.notes == (f"web: {REPLACED}; its weight was 300, which is not restored",)
    assert why_gone(there, ON_SDA) == REPLACED
    assert why_gone(state(HAS, disks={"/dev/sda": 0}), ON_SDA) == "/dev/sda no longer exists"
    assert why_gone(state(HAS, disks=SDA), ON_SDA) == why_gone(there, f"{key(WEB)}/x") == ""


def test_the_next_disk_at_a_path_has_no_weight_whatever_libvirt_tells() -> None:
    made = decide(
        parse({"device_weights": "/dev/sda,200"}),
        state(HAS, disks={"/dev/sda": 18}),
        {ON_SDA: "300"},
    )
    assert made.originals == {"web#u.1.7/device_weight /dev/sda#18": "0"}


def test_what_an_older_version_kept_is_restored_by_path() -> None:
    by_path = {"web#u.1.7/device_weight /dev/sda": "300"}
    made = decide(WeightPolicy(), state(HAS, disks=SDA), by_path)
    assert [(one.before, one.after) for one in made.changes] == [(200, 300)]
    again = decide(parse({"device_weights": "/dev/sda,200"}), state(HAS, disks=SDA), by_path)
    assert (again.changes, again.originals) == ((), {ON_SDA: "300"})


def test_a_disk_that_cannot_be_told_is_neither_set_nor_restored() -> None:
    lost = state(HAS, unknown={"/dev/sda": "Input/output error"})
    made = decide(parse({"device_weights": "/dev/sda,200"}), lost, {ON_SDA: "300"})
    assert made.changes == ()
    assert made.pending == {ON_SDA: "Input/output error"}
    assert made.refused == {"web#u.1.7/device_weight /dev/sda": "Input/output error"}


# --- what may be asked ----------------------------------------------------------------------------


def test_every_option_is_read() -> None:
    asked = parse({"blkio_weight": "10", "device_weights": " /dev/sda,1000 , /dev/sdb , 0 "})
    assert asked == WeightPolicy((WeightRule("", "", 10, {"/dev/sda": 1000, "/dev/sdb": 0}),))
    named = parse_sections([Section("s", {"blkio_weight": "1000"}, "web*")])
    assert named == WeightPolicy((WeightRule("s", "web*", 1000),))
    assert parse({}) == parse({"blkio_weight": "", "observe": "1"}) == WeightPolicy()
    assert WeightRule() == WeightRule("", "", None, {})
    assert not planner.settings(replace(WEB, weight=None), SDA)


PAIRS = "/path/of/disk,weight,/path/of/disk,weight with weights from 10 to 1000, or 0"


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("blkio_weight", "0", "a whole number from 10 to 1000"),
        ("device_weights", "/dev/sda", PAIRS),
        ("device_weights", "/dev/sda,100,", PAIRS),
        ("device_weights", "/dev/,100", PAIRS),
        ("device_weights", "/sda,100", PAIRS),
        ("device_weights", "/dev/a b,100", PAIRS),
        ("device_weights", "/dev/x/../y,100", PAIRS),
        ("device_weights", "/dev/sda,100,x,100", PAIRS),
    ],
)
def test_what_is_not_valid(name: str, text: str, why: str) -> None:
    with pytest.raises(BadOptions) as caught:
        parse({name: text})
    assert str(caught.value) == f"option '{name}': '{text}' is not valid: {why}"


def test_a_device_weight_is_a_weight() -> None:
    for weight in ("9", "1001", "00", "x"):
        with pytest.raises(BadOptions) as caught:
            parse({"device_weights": f"/dev/sda,{weight}"})
        assert str(caught.value) == (
            f"option 'device_weights': '{weight}' is not valid: a whole number from 10 to 1000"
        )
    assert parse({"device_weights": "/dev/a..b,10"}).rules[0].devices == {"/dev/a..b": 10}


def test_all_that_is_wrong_is_named() -> None:
    section = Section("x", {"blkio_weight": "x", "device_weights": "y"}, udev_regex="z")
    with pytest.raises(BadOptions) as caught:
        parse_sections([section])
    assert [str(one) for one in caught.value.errors] == [
        "option 'devices_udev_regex': 'z' is not valid: devices=, with names or UUIDs of guests:"
        " guests have no udev properties",
        "option 'blkio_weight': 'x' is not valid: a whole number from 10 to 1000",
        f"option 'device_weights': 'y' is not valid: {PAIRS}",
    ]
