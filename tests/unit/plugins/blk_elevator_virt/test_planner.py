# SPDX-License-Identifier: GPL-2.0-or-later
"""Verdicts on single disks and plans of several, from made-up facts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tuned_virt.core.options import Section
from tuned_virt.core.plan import Change
from tuned_virt.plugins.blk_elevator_virt import planner, policy
from tuned_virt.plugins.blk_elevator_virt.classify import Attachment, DiskClass
from tuned_virt.plugins.blk_elevator_virt.planner import (
    DiskState,
    SetElsewhere,
    Verdict,
    decide,
    judge,
    named,
)
from tuned_virt.plugins.blk_elevator_virt.policy import (
    CLASSES,
    DiskPolicy,
    MachineRole,
    parse,
    parse_sections,
    same,
)
from tuned_virt.plugins.blk_elevator_virt.state import Disk

OFFERED = ("none", "mq-deadline", "bfq")
ALL = {name: "bfq" for name in CLASSES}


def disk(
    name: str = "sda", kind: Attachment = Attachment.ATA, emulated: bool = False, **more: object
) -> Disk:
    values: dict[str, object] = {
        "identity": "7", "scheduler": "none", "offered": OFFERED, **more,
    }  # fmt: skip
    return Disk(name, DiskClass(kind, emulated, "fact"), **values)  # type: ignore[arg-type]


def state(*disks: Disk, **more: object) -> DiskState:
    return DiskState({one.name: one for one in disks}, **more)  # type: ignore[arg-type]


def verdict(of: DiskState, asked: DiskPolicy, name: str = "sda", **originals: str) -> Verdict:
    return next(one for one in judge(asked, of, originals) if one.disk.name == name)


# --- which option decides -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "emulated", "host", "guest"),
    [
        (Attachment.VIRTIO_BLK, True, "host_other", "guest_virtio"),
        (Attachment.VIRTIO_SCSI, True, "host_other", "guest_virtio"),
        (Attachment.LUN, False, "host_other", "guest_passthrough"),
        (Attachment.ISCSI, False, "host_other", "guest_passthrough"),
        (Attachment.HBA, False, "host_other", "guest_passthrough"),
        (Attachment.HBA, True, "host_other", "guest_emulated"),
        (Attachment.ATA, True, "host_other", "guest_emulated"),
        (Attachment.USB, True, "host_other", "guest_emulated"),
        (Attachment.MULTIPATH, False, "host_other", "guest_passthrough"),
        (Attachment.NVME, True, "host_nvme", "guest_nvme"),
        (Attachment.NVME_FABRICS, False, "host_nvme", "guest_nvme"),
        (Attachment.MMC, False, "host_other", "guest_other"),
    ],
)
def test_the_option_of_a_kind(kind: Attachment, emulated: bool, host: str, guest: str) -> None:
    one = state(disk(kind=kind, emulated=emulated))
    assert verdict(one, parse({"role": "host", **ALL})).option == host
    assert verdict(one, parse({"role": "guest", **ALL})).option == guest


def test_why_in_words() -> None:
    host, guest = parse({"role": "host", **ALL}), parse({"role": "guest", **ALL})
    plain = state(disk(kind=Attachment.HBA))
    assert verdict(plain, host).why == "SCSI HBA, backs no guest: host_other=bfq"
    assert verdict(plain, guest).why == "SCSI HBA: guest_passthrough=bfq"
    assert verdict(state(disk(kind=Attachment.NVME)), host).why == "NVMe: host_nvme=bfq"
    assert verdict(state(disk(kind=Attachment.MMC)), host).why == "MMC: host_other=bfq"
    assert verdict(state(disk(emulated=True)), guest).why == "emulated SATA: guest_emulated=bfq"
    backing = state(disk(), users={"sda": ("web", "db")})
    assert verdict(backing, host).why == "SATA, backs web, db: host_backing=bfq"
    assert (
        verdict(state(disk(kind=Attachment.NVME), users={"sda": ("web",)}), host).option
        == "host_nvme"
    )
    assert (
        verdict(state(disk(kind=Attachment.MMC), users={"sda": ("web",)}), host).option
        == "host_other"
    )


@pytest.mark.parametrize(
    ("queues", "wanted", "why"),
    [
        (1, "mq-deadline", "virtio-blk: guest_virtio=queues, one queue"),
        (4, "none", "virtio-blk: guest_virtio=queues, 4 queues"),
    ],
)
def test_queues_in_words(queues: int, wanted: str, why: str) -> None:
    asked = parse({"role": "guest", "guest_virtio": "queues"})
    found = verdict(state(disk(kind=Attachment.VIRTIO_BLK, queues=queues)), asked)
    assert (found.wanted, found.why, found.word) == (wanted, why, "queues")
    assert found.claimed


def test_of_a_machine_that_is_both_a_guests_option_counts_where_it_asks() -> None:
    both = parse({"role": "both", "host_backing": "bfq", "guest_passthrough": "keep"})
    backing = state(disk(kind=Attachment.LUN), users={"sda": ("web",)})
    assert verdict(backing, both).option == "host_backing"
    asks = parse({"role": "both", "host_backing": "bfq", "guest_passthrough": "none"})
    assert verdict(backing, asks).option == "guest_passthrough"
    idle = verdict(state(disk(kind=Attachment.LUN)), both)
    assert (idle.option, idle.wanted, idle.claimed) == ("guest_passthrough", "", False)
    assert idle.why == "LUN through virtio-scsi: guest_passthrough=keep"
    auto = parse({"host_backing": "bfq"})
    assert verdict(replace(backing, role=MachineRole.BOTH), auto).option == "host_backing"
    assert verdict(replace(backing, role=MachineRole.GUEST), auto).option == "guest_passthrough"


def test_guests_that_are_not_known_yet_keep_what_backed_some() -> None:
    asked = parse({"role": "host", "host_backing": "bfq"})
    unsettled = state(disk(), unsettled="libvirt does not answer")
    assert verdict(unsettled, asked).option == "host_other"
    kept = judge(asked, unsettled, {"sda#7/scheduler": "none"})[0]
    assert kept.why == "SATA, backed guests, libvirt does not answer: host_backing=bfq"
    known = judge(asked, state(disk()), {"sda#7/scheduler": "none"})[0]
    assert known.option == "host_other"


# --- disks that are left alone --------------------------------------------------------------------


def test_a_disk_with_nothing_to_choose() -> None:
    asked = parse({"role": "host", **ALL})
    bare = verdict(state(disk(offered=(), scheduler="")), asked)
    assert (bare.why, bare.claimed) == ("no choice of schedulers", False)
    silent = verdict(state(disk(offered=(), trouble="no answer")), asked)
    assert silent.why == "it gives no answer"
    layer = disk("dm-0", Attachment.DM, offered=(), slaves=("sdb", "sda"))
    of = state(layer, disk("sda"), disk("sdb"))
    assert verdict(of, asked, "dm-0").why == "its requests go to sda, sdb"
    alone = state(replace(layer, slaves=()))
    assert verdict(alone, asked, "dm-0").why == "its requests go to its underlying disks"


def test_paths_of_a_multipath_device_are_ordered_by_it() -> None:
    top = disk("dm-0", Attachment.MULTIPATH, slaves=("sda",))
    of = state(top, disk("sda"), users={"sda": ("web",)})
    found = verdict(of, parse({"role": "host", **ALL}))
    assert (found.why, found.claimed) == ("dm-0 orders its requests", False)
    assert found.users == ("web",)


def test_the_first_section_for_a_disk_decides() -> None:
    asked = parse_sections(
        [
            Section("a", {"role": "host", "host_other": "none"}, "sdb"),
            Section("b", {"role": "host", "host_other": "bfq"}, udev_regex="^ID_BUS=usb$"),
            Section("c", {"role": "host", "host_other": "mq-deadline"}, "dm-0 !sdd"),
        ],
        (),
    )
    of = state(
        disk("sda"), disk("sdb"), disk("sdc"), disk("sdd"),
        disk("dm-0", Attachment.DM, offered=(), slaves=("sdc", "sdd")),
        properties={"sda": {"ID_BUS": "usb"}},
    )  # fmt: skip
    assert [one.wanted for one in judge(asked, of, {})] == ["bfq", "none", "mq-deadline", "", ""]
    assert verdict(of, asked, "sdd").why == "no section selects it"


# --- others who set it ----------------------------------------------------------------------------


def test_tuneds_own_plugin_keeps_its_disks() -> None:
    conflicting = [Section("disk", {"elevator": "none"}, "sda sdb")]
    asked = parse_sections([Section("x", {"role": "host", **ALL})], conflicting)
    assert asked.conflicting == {"sda": "none", "sdb": "none"}
    found = verdict(state(disk(), disk("sdc")), asked)
    assert found.remark == (
        "left to TuneD's own disk plugin, which has elevator=none in this profile: remove one"
        " of the"
        " two"
    )
    assert not found.claimed
    assert verdict(state(disk(), disk("sdc")), asked, "sdc").claimed


@pytest.mark.parametrize(
    ("scheduler", "administrators", "before", "left"),
    [
        ("none", True, "none", True),
        ("noop", True, "none", True),
        ("none", False, "none", False),
        ("mq-deadline", True, "none", False),
        ("bfq", True, "bfq", False),
        ("cfq", True, "cfq", False),
    ],
)
def test_an_administrators_udev_rule_that_is_in_force(
    scheduler: str, administrators: bool, before: str, left: bool
) -> None:
    rule = SetElsewhere("/etc/udev/rules.d/9.rules:3", scheduler, administrators)
    of = state(disk(scheduler=before), elsewhere={"sda": (rule,)})
    found = verdict(of, parse({"role": "host", **ALL}))
    assert found.claimed is not left
    assert found.remark == (
        f"left at {before}, which the udev rule /etc/udev/rules.d/9.rules:3 sets: remove one"
        if left
        else ""
    )


def test_a_rule_counts_against_what_the_disk_had_before_us() -> None:
    rule = SetElsewhere("r", "none", True)
    of = state(disk(scheduler="bfq"), elsewhere={"sda": (rule,)})
    asked = parse({"role": "host", **ALL})
    assert verdict(of, asked).claimed
    assert not judge(asked, of, {"sda#7/scheduler": "none"})[0].claimed
    theirs = SetElsewhere("s", "mq-deadline", True)
    both = replace(of, elsewhere={"sda": (theirs, rule)})
    assert not judge(asked, both, {"sda#7/scheduler": "none"})[0].claimed


def test_the_distributions_rules_that_give_way_are_said_once() -> None:
    rule = SetElsewhere("60.rules:5", "none", False)
    same_as = SetElsewhere("61.rules:1", "cfq", False)
    of = state(disk(), disk("sdb"), elsewhere={"sda": (rule, same_as), "sdb": (rule,)})
    made = decide(parse({"role": "host", **ALL}), of, {})
    assert made.notes == (
        "the udev rule 60.rules:5 sets none on some of these disks; it is set again",
    )
    assert decide(DiskPolicy(), of, {}).notes == ()


def test_trouble_and_schedulers_that_are_not_there() -> None:
    asked = parse({"role": "host", **ALL})
    busy = verdict(state(disk(trouble="frozen")), asked)
    assert (busy.remark, busy.claimed) == ("not set to bfq now: frozen", False)
    right = verdict(state(disk(trouble="frozen", scheduler="bfq")), asked)
    assert (right.remark, right.claimed) == ("", True)
    few = disk(offered=("none", "mq-deadline"))
    lacking = verdict(state(few, lacking=frozenset({"bfq"})), asked)
    assert lacking.lacking == (
        "this kernel has no bfq, not even as a module: it offers none mq-deadline"
    )
    assert (lacking.wanted, lacking.claimed) == ("bfq", False)
    assert verdict(state(few), asked).claimed, "its module is loaded when it is written"
    assert verdict(state(disk(), lacking=frozenset({"bfq"})), asked).claimed


# --- plans ----------------------------------------------------------------------------------------

BLOCK = "/sys/block"


def test_a_plan() -> None:
    of = state(disk(), disk("sdb", scheduler="bfq"), disk("vda", offered=()),
               tunables={"sda": {"nr_requests": "64", "iosched/x": "1"}})  # fmt: skip
    made = decide(parse({"role": "host", **ALL}), of, {})
    assert made.changes == (
        Change(
            "sda#7/scheduler", f"{BLOCK}/sda/queue/scheduler", "none", "bfq",
            "SATA, backs no guest: host_other=bfq",
        ),
    )  # fmt: skip
    assert made.originals == {
        "sda#7/scheduler": "none", "sda#7/nr_requests": "64", "sda#7/iosched/x": "1",
        "sdb#7/scheduler": "bfq",
    }  # fmt: skip
    assert made.wanted == {"sda#7/scheduler": "bfq", "sdb#7/scheduler": "bfq"}
    assert (made.missing, made.pending, made.notes) == ({}, {}, ())


def test_originals_are_those_of_the_first_change() -> None:
    tuned = state(disk(scheduler="bfq"), tunables={"sda": {"nr_requests": "1"}})
    kept = {"sda#7/scheduler": "none", "sda#7/nr_requests": "64"}
    made = decide(parse({"role": "host", "host_other": "mq-deadline"}), tuned, kept)
    assert made.originals == kept
    assert [one.after for one in made.changes] == ["mq-deadline"]
    undone = state(disk(scheduler="none"), tunables={"sda": {"nr_requests": "8"}})
    again = decide(parse({"role": "host", **ALL}), undone, {"sda#7/scheduler": "none"})
    assert again.originals == {"sda#7/scheduler": "none", "sda#7/nr_requests": "8"}


def test_the_way_back_of_what_the_scheduler_did_not_reset() -> None:
    """Only what differs is set; what is not there now comes from nothing."""
    kept = {"sda#7/nr_requests": "64", "sda#7/iosched/a": "1", "sda#7/iosched/b": "2"}
    of = state(disk(), tunables={"sda": {"nr_requests": "64", "iosched/a": "9"}})
    made = decide(DiskPolicy(), of, kept)
    assert [(one.setting, one.before, one.after) for one in made.changes] == [
        ("sda#7/iosched/a", "9", "1"), ("sda#7/iosched/b", "", "2"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("of", "asked"),
    [
        (disk(offered=()), {}),
        (disk(), {"devices": "sdb"}),
        (disk(), {"host_backing": "keep"}),
        (disk(), {"host_backing": "bfq"}),
    ],
    ids=["without schedulers", "selected by nobody", "kept", "set"],
)
def test_the_guests_on_a_disk_are_told_whatever_becomes_of_it(
    of: Disk, asked: dict[str, str]
) -> None:
    policy = parse({"role": "host", **asked})
    assert verdict(state(of, users={"sda": ("web",)}), policy).users == ("web",)
    assert verdict(state(of), policy).users == ()


def test_the_way_back_sets_the_scheduler_first() -> None:
    kept = {
        "sda#7/iosched/a": "1", "sda#7/nr_requests": "64", "sda#7/scheduler": "none",
        "gone#1/scheduler": "none",
    }  # fmt: skip
    of = state(disk(scheduler="bfq"), tunables={"sda": {"nr_requests": "64", "iosched/a": "1"}})
    made = decide(DiskPolicy(), of, kept)
    before = "original value"
    queue = f"{BLOCK}/sda/queue"
    assert made.changes == (
        Change("sda#7/scheduler", f"{queue}/scheduler", "bfq", "none", before),
        Change("sda#7/nr_requests", f"{queue}/nr_requests", "", "64", before),
        Change("sda#7/iosched/a", f"{queue}/iosched/a", "", "1", before),
    )
    same_scheduler = state(disk(), tunables={"sda": {"nr_requests": "8", "iosched/a": "1"}})
    made = decide(DiskPolicy(), same_scheduler, kept)
    assert made.changes == (Change("sda#7/nr_requests", f"{queue}/nr_requests", "8", "64", before),)
    assert (made.pending, made.originals) == ({}, {})


def test_what_cannot_be_put_back_now_is_pending() -> None:
    kept = {"sda#7/scheduler": "none", "sda#7/nr_requests": "64", "sdb#7/scheduler": "none"}
    of = state(disk(scheduler="bfq", trouble="frozen"), disk("sdb", scheduler="bfq"))
    made = decide(DiskPolicy(), of, kept)
    assert made.pending == {"sda#7/scheduler": "frozen", "sda#7/nr_requests": "frozen"}
    assert [one.setting for one in made.changes] == ["sdb#7/scheduler"]


def test_what_is_lacking_is_missing_and_what_is_kept_goes_back() -> None:
    few = disk(offered=("none", "mq-deadline"), scheduler="mq-deadline")
    of = state(few, lacking=frozenset({"bfq"}))
    made = decide(parse({"role": "host", **ALL}), of, {"sda#7/scheduler": "none"})
    assert made.missing.keys() == {"sda#7/scheduler"}
    assert made.wanted == {}
    assert [one.after for one in made.changes] == ["none"]


def test_disks_whose_tunables_a_plan_needs() -> None:
    asked = parse({"role": "host", **ALL})
    first = state(disk(), disk("sdb", scheduler="bfq"), disk("sdc", trouble="x"))
    assert planner.needing_tunables(asked, first, {}) == ["sda"]
    kept = {"sda#7/scheduler": "mq-deadline", "sda#7/nr_requests": "1"}
    assert planner.needing_tunables(asked, first, kept) == []
    assert planner.needing_tunables(DiskPolicy(), first, kept) == ["sda"]
    assert planner.needing_tunables(DiskPolicy(), first, {"sda#7/scheduler": "none"}) == []
    busy = {"sdc#7/scheduler": "none", "sdc#7/nr_requests": "1"}
    assert planner.needing_tunables(DiskPolicy(), first, busy) == []


def test_notes_name_disks_with_the_same_remark_together() -> None:
    of = state(*(disk(f"sd{n}", trouble="frozen") for n in "abcdefg"), disk("sdz", trouble="slow"),
               unsettled="libvirt does not answer")  # fmt: skip
    made = decide(parse({"role": "host", **ALL}), of, {})
    assert made.notes == (
        "guests: libvirt does not answer",
        "sda, sdb, sdc, sdd, sde and 2 more: not set to bfq now: frozen",
        "sdz: not set to bfq now: slow",
    )


@pytest.mark.parametrize(
    ("names", "text"),
    [("", ""), ("a", "a"), ("abcde", "a, b, c, d, e"), ("abcdef", "a, b, c, d, e and 1 more")],
)
def test_the_first_few_names(names: str, text: str) -> None:
    assert named(names) == text


def test_values_and_lanes() -> None:
    assert state(disk(), disk("loop0", offered=())).values == {"sda#7/scheduler": "none"}
    assert planner.worker_key("sda#7/iosched/x") == "sda#7"


# --- what may be asked ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "own", "asks"),
    [
        ({"host_backing": "bfq"}, MachineRole.HOST, True),
        ({"host_backing": "bfq"}, MachineRole.GUEST, False),
        ({"host_backing": "bfq"}, MachineRole.BOTH, True),
        ({"host_backing": "bfq", "role": "guest"}, MachineRole.HOST, False),
        ({"host_backing": "bfq", "role": "host"}, MachineRole.GUEST, True),
        ({"host_backing": "bfq", "host_other": "bfq"}, MachineRole.HOST, False),
        ({"host_other": "bfq"}, MachineRole.HOST, True),
        ({"guest_other": "bfq"}, MachineRole.HOST, False),
    ],
)
def test_whether_guests_disks_must_be_known(
    options: dict[str, str], own: MachineRole, asks: bool
) -> None:
    assert parse(options).asks_users(own) is asks


def test_sections_in_full() -> None:
    asked = parse_sections(
        [
            Section("a", {"role": "both", "host_nvme": " none "}, "nvme*", "X"),
            Section("b", {}),
        ],
        [],
    )
    first, second = asked.rules
    keep = dict.fromkeys(CLASSES, "keep")
    assert first == policy.SchedulerRule(
        "a", MachineRole.BOTH, {**keep, "host_nvme": "none"}, "nvme*", "X"
    )
    assert second == policy.SchedulerRule("b", MachineRole.AUTO, keep)
    assert (first.acts, second.acts) == (True, False)
    assert parse_sections([Section("b", {})], [Section("d", {"elevator": "x"}, "sda")]) == (
        DiskPolicy((), {"sda": "x"})
    )
    assert not policy.SchedulerRule().acts
    shown = policy.defaults().rules[0]
    assert shown.words["guest_virtio"] == "queues"
    assert shown.words["host_nvme"] == "keep"


def test_names_of_the_same() -> None:
    pairs = [("none", "noop"), ("mq-deadline", "deadline"), ("bfq", "cfq"), ("kyber", "kyber")]
    assert all(same(one, other) and same(other, one) for one, other in pairs)
    assert not same("none", "deadline")
    assert not same("kyber", "none")
