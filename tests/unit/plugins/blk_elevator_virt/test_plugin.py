# SPDX-License-Identifier: GPL-2.0-or-later
"""Policy, plan, apply, verify and the way back, over a fake sysfs."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.unit.blockdev import AHCI, LOOP, SQ, VIRTIO, FakeDisks, hba
from tuned_virt.core.engine import Engine
from tuned_virt.core.journal import Journal
from tuned_virt.core.options import BadOptions, Section
from tuned_virt.core.originals import Originals
from tuned_virt.core.plan import Change
from tuned_virt.kernel.files import KernelFileError
from tuned_virt.plugins.blk_elevator_virt import DisksTuner, judge, policy
from tuned_virt.plugins.blk_elevator_virt.planner import DiskState, SetElsewhere
from tuned_virt.plugins.blk_elevator_virt.policy import DiskPolicy, parse, resolve
from tuned_virt.plugins.blk_elevator_virt.writer import DiskWriter


@pytest.fixture
def fs(tmp_path: Path) -> FakeDisks:
    return FakeDisks(tmp_path / "root")


Disks = Engine[DiskPolicy, DiskState]


@pytest.fixture
def engine(fs: FakeDisks, tmp_path: Path) -> Disks:
    return made(fs, tmp_path)


def made(fs: FakeDisks, tmp_path: Path) -> Disks:
    tuner = DisksTuner(folder=tmp_path)
    return Engine(tuner, fs, Originals(tmp_path / "run", "boot"), Journal(tmp_path / "journal"))


GUEST = parse({"role": "guest", "guest_virtio": "queues", "guest_emulated": "mq-deadline"})
EVERYTHING = parse({"role": "host", "host_other": "bfq"})


def lines(engine: Disks, asked: DiskPolicy) -> list[str]:
    return [str(line) for line in engine.verify(engine.apply(asked), asked, ignore_missing=False)]


# --- what may be asked ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"host_backing": "fast"},
            "option 'host_backing': 'fast' is not valid: one of keep, queues, none, mq-deadline,"
            " kyber, bfq, noop, deadline, cfq",
        ),
        (
            {"role": "server"},
            "option 'role': 'server' is not valid: one of auto, host, guest, both",
        ),
        ({"guest_nvme": "none; reboot"}, "option 'guest_nvme': 'none; reboot' is not valid"),
    ],
)
def test_bad_input_is_named(options: dict[str, str], text: str) -> None:
    with pytest.raises(BadOptions) as error:
        parse(options)
    assert text in str(error.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    sections = [
        Section("a", {"host_other": "x", "role": "y"}),
        Section("b", {"host_nvme": "keep"}, udev_regex="("),
    ]
    with pytest.raises(BadOptions) as error:
        policy.parse_sections(sections, ())
    assert [one.option for one in error.value.errors] == [
        "role",
        "host_other",
        "devices_udev_regex",
    ]


def test_nothing_asked_is_nothing_set() -> None:
    assert parse({}) == DiskPolicy()
    assert parse({"host_other": "", "role": "host"}) == DiskPolicy()
    assert policy.defaults().rules[0].words["host_backing"] == "mq-deadline"


@pytest.mark.parametrize(
    ("word", "queues", "offered", "wanted"),
    [
        ("noop", 1, "none mq-deadline", "none"),
        ("deadline", 1, "none mq-deadline", "mq-deadline"),
        ("cfq", 1, "none mq-deadline bfq", "bfq"),
        ("none", 1, SQ, "noop"),
        ("mq-deadline", 1, SQ, "deadline"),
        ("bfq", 1, SQ, "cfq"),
        ("queues", 1, SQ, "deadline"),
        ("queues", 4, "none mq-deadline", "none"),
        ("queues", 1, "none mq-deadline", "mq-deadline"),
        ("cfq", 1, "none mq-deadline", "bfq"),
        ("bfq", 1, "noop deadline", "cfq"),
        ("kyber", 1, "none", "kyber"),
        ("kyber", 1, SQ, "kyber"),
    ],
)
def test_old_and_new_names(word: str, queues: int, offered: str, wanted: str) -> None:
    assert resolve(word, queues, offered.split()) == wanted


# --- which class decides --------------------------------------------------------------------

WORDS = {name: word for name, word in zip(policy.CLASSES, policy.SCHEDULERS * 2)}


def options_by_disk(
    engine: Disks, role: str, users: Iterable[str] = (), **words: str
) -> dict[str, str]:
    asked = parse({**dict.fromkeys(policy.CLASSES, "bfq"), "role": role, **words})
    state = engine.tuner.read(engine._fs, asked, {})
    state = DiskState(state.disks, users=dict.fromkeys(users, ("web1",)))
    return {verdict.disk.name: verdict.option for verdict in judge(asked, state, {})}


def every_kind(fs: FakeDisks) -> None:
    fs.add("vda", f"{VIRTIO}vda")
    fs.add("sda", f"{AHCI}sda", device__vendor="ATA")
    fs.controller("sda", vendor="0x8086", device="0x2922", subsystem_vendor="0x1af4")
    hba(fs, "sdb", 1)
    hba(fs, "sdc", 2, vendor="QEMU")
    fs.add("sdd", "/sys/devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sdd")
    fs.add("nvme0n1", "{pci}/nvme/nvme0/nvme0n1")
    fs.add("mmcblk0", "/sys/devices/platform/x/mmc_host/mmc0/mmc0:1/block/mmcblk0")
    fs.add("loop0", f"{LOOP}loop0")
    fs.add("zram0", f"{LOOP}zram0", offered="")


def test_classes_in_a_guest(fs: FakeDisks, engine: Disks) -> None:
    every_kind(fs)
    assert options_by_disk(engine, "guest", ["sda"]) == {
        "vda": "guest_virtio",
        "sda": "guest_emulated",
        "sdb": "guest_passthrough",
        "sdc": "guest_emulated",
        "sdd": "guest_passthrough",
        "nvme0n1": "guest_nvme",
        "mmcblk0": "guest_other",
        "loop0": "guest_other",
        "zram0": "",
    }


def test_classes_on_a_host(fs: FakeDisks, engine: Disks) -> None:
    every_kind(fs)
    assert options_by_disk(engine, "host", ["sda", "sdd", "vda"]) == {
        "vda": "host_other",
        "sda": "host_backing",
        "sdb": "host_other",
        "sdc": "host_other",
        "sdd": "host_backing",
        "nvme0n1": "host_nvme",
        "mmcblk0": "host_other",
        "loop0": "host_other",
        "zram0": "",
    }


def test_a_machine_that_is_both(fs: FakeDisks, engine: Disks) -> None:
    every_kind(fs)
    found = options_by_disk(engine, "both", ["sdb", "sda"], guest_passthrough="keep")
    assert found["sdb"] == "host_backing"
    assert found["sda"] == "guest_emulated"
    assert found["sdd"] == "guest_passthrough"


# --- apply, verify, undo --------------------------------------------------------------------


def test_what_is_right_is_not_written(fs: FakeDisks, engine: Disks) -> None:
    fs.add("vda", f"{VIRTIO}vda", queues=4)
    fs.add("vdb", f"{VIRTIO}vdb", active="mq-deadline")
    assert lines(engine, GUEST) == [
        "verify: passed: 'blk_elevator_virt vda/scheduler' = 'none'",
        "verify: passed: 'blk_elevator_virt vdb/scheduler' = 'mq-deadline'",
    ]
    assert fs.writes == []


@pytest.mark.parametrize("active", ["none", "mq-deadline", "kyber", "bfq"])
def test_the_way_back_is_identical(fs: FakeDisks, engine: Disks, active: str) -> None:
    queue = fs.add("vda", f"{VIRTIO}vda", active=active)
    fs.file(f"{queue}/nr_requests", "33")
    for file in fs.names(f"{queue}/iosched"):
        fs.file(f"{queue}/iosched/{file}", "77")
    before = fs.state()
    for word in ("none", "mq-deadline", "bfq"):
        engine.apply(parse({"role": "guest", "guest_virtio": word}))
        assert fs.scheduler("vda") == word
    engine.restore()
    assert fs.state() == before
    assert engine.originals.record("blk_elevator_virt").originals == {}


def test_the_way_back_after_kill9(fs: FakeDisks, engine: Disks, tmp_path: Path) -> None:
    queue = fs.add("loop0", f"{LOOP}loop0", active="mq-deadline")
    fs.file(f"{queue}/iosched/read_expire", "123")
    before = fs.state()
    engine.apply(EVERYTHING)
    again = made(fs, tmp_path)
    again.apply(EVERYTHING)
    made(fs, tmp_path).restore()
    assert fs.state() == before


def test_each_disk_is_a_lane(fs: FakeDisks, engine: Disks) -> None:
    for number in range(40):
        fs.add(f"loop{number}", f"{LOOP}loop{number}")
    together = threading.Barrier(40, timeout=5)
    fs.__dict__["before_write"] = lambda path: together.wait()
    outcome = engine.apply(EVERYTHING)
    assert outcome.failed == {}
    assert len(outcome.made) == 40


def test_order_of_putting_back(fs: FakeDisks, engine: Disks) -> None:
    fs.add("loop0", f"{LOOP}loop0", active="mq-deadline")
    queue = "/sys/block/loop0/queue"
    fs.file(f"{queue}/nr_requests", "100")
    fs.file(f"{queue}/iosched/fifo_batch", "1")
    engine.apply(EVERYTHING)
    fs.writes.clear()
    engine.restore()
    assert fs.writes == [
        (f"{queue}/scheduler", "mq-deadline"),
        (f"{queue}/nr_requests", "100"),
        (f"{queue}/iosched/fifo_batch", "1"),
    ]


def test_a_jiffy_is_tolerated_after_a_write_and_not_before(engine: Disks) -> None:
    change = Change("sda#3/iosched/read_expire", "", "", "500", "")
    assert engine.tuner.writer.took(change, "504")
    assert not engine.tuner.writer.took(change, "511")
    assert not engine.tuner.writer.took(Change("sda/nr_requests", "", "", "500", ""), "504")


def test_a_section_that_goes_gives_its_disks_back(fs: FakeDisks, engine: Disks) -> None:
    fs.add("loop0", f"{LOOP}loop0")
    fs.add("loop1", f"{LOOP}loop1")
    both = [
        Section("a", {"role": "host", "host_other": "bfq"}, "loop0"),
        Section("b", {"role": "host", "host_other": "mq-deadline"}),
    ]
    engine.apply(policy.parse_sections(both, ()))
    assert (fs.scheduler("loop0"), fs.scheduler("loop1")) == ("bfq", "mq-deadline")
    engine.apply(policy.parse_sections(both[:1], ()))
    assert (fs.scheduler("loop0"), fs.scheduler("loop1")) == ("bfq", "none")


def test_a_section_that_keeps_shields_its_disks(fs: FakeDisks, engine: Disks) -> None:
    fs.add("loop0", f"{LOOP}loop0")
    fs.add("loop1", f"{LOOP}loop1")
    sections = [
        Section("mine", {"host_other": "keep"}, "loop0"),
        Section("rest", {"role": "host", "host_other": "bfq"}),
    ]
    engine.apply(policy.parse_sections(sections, ()))
    assert (fs.scheduler("loop0"), fs.scheduler("loop1")) == ("none", "bfq")


def test_a_negative_rule_excludes_a_disk(fs: FakeDisks, engine: Disks) -> None:
    fs.add("loop0", f"{LOOP}loop0")
    fs.add("loop1", f"{LOOP}loop1")
    asked = Section("most", {"role": "host", "host_other": "bfq"}, "!loop0")
    engine.apply(policy.parse_sections([asked], ()))
    assert (fs.scheduler("loop0"), fs.scheduler("loop1")) == ("none", "bfq")


def test_each_physical_queue_is_set_once(fs: FakeDisks, engine: Disks) -> None:
    hba(fs, "sda", 1)
    hba(fs, "sdb", 2)
    fs.add("dm-0", f"{LOOP}dm-0", offered="", dm__uuid="LVM-x")
    fs.slaves("dm-0", "sda")
    fs.add("dm-1", f"{LOOP}dm-1", dm__uuid="mpath-x", dm__suspended="0")
    fs.slaves("dm-1", "sdb")
    engine.apply(parse({"role": "guest", "guest_passthrough": "mq-deadline"}))
    assert sorted(path for path, _ in fs.writes) == [
        "/sys/block/dm-1/queue/scheduler",
        "/sys/block/sda/queue/scheduler",
    ]


# --- what goes wrong ------------------------------------------------------------------------


def test_a_disk_that_vanishes_mid_write_is_no_failure(fs: FakeDisks, engine: Disks) -> None:
    for name in ("loop0", "loop1"):
        fs.add(name, f"{LOOP}{name}")

    def vanish(path: str, value: str) -> int:
        if "loop0" in path:
            fs.pull("loop0")
            return errno.ENODEV
        return 0

    fs.__dict__["refuse"] = vanish
    assert lines(engine, EVERYTHING) == [
        "verify: note: blk_elevator_virt: loop0/scheduler: loop0 no longer exists",
        "verify: passed: 'blk_elevator_virt loop1/scheduler' = 'bfq'",
    ]
    engine.restore()
    assert engine.originals.all() == {}


def test_a_namesake_is_not_given_another_disks_past(fs: FakeDisks, engine: Disks) -> None:
    hba(fs, "sdb", 1, active="kyber")
    asked = parse({"role": "guest", "guest_passthrough": "bfq"})
    engine.apply(asked)
    fs.pull("sdb")
    hba(fs, "sdb", 2, active="none")
    was = "sdb is another device now: it was removed and added since; its scheduler was kyber"
    assert lines(engine, asked) == [
        "verify: passed: 'blk_elevator_virt sdb/scheduler' = 'bfq'",
        f"verify: note: blk_elevator_virt: {was}, which is not restored",
    ]
    engine.restore()
    assert fs.scheduler("sdb") == "none"


def test_what_has_become_of_a_disk_is_known(fs: FakeDisks, engine: Disks) -> None:
    hba(fs, "sda", 1)
    hba(fs, "sdb", 2)
    engine.apply(parse({"role": "guest", "guest_passthrough": "bfq"}))
    originals = engine.originals.record("blk_elevator_virt").originals
    fs.pull("sda")
    fs.pull("sdb")
    hba(fs, "sdb", 3)
    found = engine.tuner.look(fs, parse({}), originals)
    assert {engine.tuner.gone(found, setting) for setting in originals} == {
        "sda no longer exists",
        "sdb is another device now: it was removed and added since",
    }


def test_disks_that_cannot_be_told_apart_are_pending(
    fs: FakeDisks, engine: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    hba(fs, "sda", 1, active="kyber")
    engine.apply(parse({"role": "guest", "guest_passthrough": "bfq"}))
    with monkeypatch.context() as broken:

        def refuses(_fs: FakeDisks, path: str) -> dict[str, int]:
            raise KernelFileError(path, "Input/output error")

        broken.setattr(FakeDisks, "entries", refuses)
        engine.restore()
    assert fs.scheduler("sda") == "bfq"
    pending = engine.originals.record("blk_elevator_virt").pending
    assert set(pending.values()) == {"cannot read /sys/block: Input/output error"}
    engine.restore()
    assert fs.scheduler("sda") == "kyber"


def test_ebusy_is_waited_out(fs: FakeDisks, engine: Disks) -> None:
    fs.add("loop0", f"{LOOP}loop0")
    answers = [errno.EBUSY, errno.EBUSY, 0, 0]
    fs.__dict__["refuse"] = lambda path, value: answers.pop(0)
    assert engine.apply(EVERYTHING).failed == {}
    assert fs.scheduler("loop0") == "bfq"


def test_a_refusal_is_said_with_path_value_and_reason(fs: FakeDisks, engine: Disks) -> None:
    fs.add("loop0", f"{LOOP}loop0")
    fs.__dict__["refuse"] = lambda path, value: errno.EINVAL
    [line] = lines(engine, EVERYTHING)
    assert line == (
        "verify: failed: 'blk_elevator_virt loop0/scheduler' = 'none', expected 'bfq' (cannot write"
        " 'bfq' to /sys/block/loop0/queue/scheduler: Invalid argument)"
    )


def test_a_scheduler_whose_module_is_missing(fs: FakeDisks, engine: Disks) -> None:
    fs.add("loop0", f"{LOOP}loop0", offered="none mq-deadline")
    [line] = lines(engine, EVERYTHING)
    assert line == (
        "verify: failed: blk_elevator_virt: loop0/scheduler: this kernel has no bfq, not even as a"
        " module: it offers none mq-deadline"
    )
    assert fs.writes == []


def test_a_scheduler_whose_module_can_be_loaded_is_written(fs: FakeDisks, engine: Disks) -> None:
    import os

    fs.add("loop0", f"{LOOP}loop0", offered="none mq-deadline")
    fs.file(f"/lib/modules/{os.uname().release}/modules.dep", "kernel/block/bfq.ko.xz:")
    engine.apply(EVERYTHING)
    assert "loop0" in engine.originals.record("blk_elevator_virt").originals.popitem()[0]


def test_a_dead_queue_is_not_written_to(fs: FakeDisks, engine: Disks) -> None:
    hba(fs, "sda", 1, device__state="offline")
    fs.add("dm-0", f"{LOOP}dm-0", dm__uuid="mpath-x", dm__suspended="1")
    found = lines(engine, parse({"role": "guest", "guest_passthrough": "bfq"}))
    assert found == [
        "verify: note: blk_elevator_virt: dm-0: not set to bfq now: the device is suspended",
        "verify: note: blk_elevator_virt: sda: not set to bfq now: the device is offline",
    ]
    assert fs.writes == []


def test_requests_in_flight_that_do_not_complete(
    fs: FakeDisks, engine: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuned_virt.plugins.blk_elevator_virt.writer.STALLED", 0.001)
    fs.add("loop0", f"{LOOP}loop0", inflight="       0        3", stat="5 0 0 0 7 0 0 0 3 0 0")
    outcome = engine.apply(EVERYTHING)
    assert "3 requests in flight, and none completed" in outcome.failed["loop0#2/scheduler"]
    assert fs.writes == []


@pytest.mark.large
def test_a_write_that_never_returns_holds_up_nobody(
    fs: FakeDisks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DiskWriter, "timeout", 0.2)
    engine = made(fs, tmp_path)
    for name in ("loop0", "loop1", "loop2"):
        fs.add(name, f"{LOOP}{name}")
    drained = threading.Event()
    fs.__dict__["before_write"] = lambda path: drained.wait() if "loop1" in path else None
    found = lines(engine, EVERYTHING)
    assert [line.split()[1] for line in found] == ["passed:", "failed:", "passed:"]
    assert (
        "the request queue is not draining; the change is still blocked in the kernel" in found[1]
    )
    engine.restore()
    assert (fs.scheduler("loop0"), fs.scheduler("loop1")) == ("none", "none")
    pending = engine.originals.record("blk_elevator_virt").pending
    assert pending.keys() == {"loop1#4/scheduler", "loop1#4/nr_requests"}
    drained.set()
    while engine._workers.busy:
        pass
    assert fs.scheduler("loop1") == "bfq"
    engine.restore()
    assert fs.scheduler("loop1") == "none"
    assert engine.originals.all() == {}


@pytest.mark.large
def test_many_disks(fs: FakeDisks, engine: Disks) -> None:
    for number in range(100):
        fs.add(f"loop{number}", f"{LOOP}loop{number}", active="mq-deadline")
    before = fs.state()
    assert engine.apply(EVERYTHING).failed == {}
    assert len(fs.writes) == 100
    engine.restore()
    assert fs.state() == before


def test_a_kernel_of_before_5_0_is_given_its_own_names(fs: FakeDisks, engine: Disks) -> None:
    fs.add("loop0", f"{LOOP}loop0", offered=SQ, active="cfq")
    before = fs.state()
    engine.apply(parse({"role": "host", "host_other": "none"}))
    assert fs.scheduler("loop0") == "noop"
    engine.restore()
    assert fs.state() == before


# --- others who set schedulers --------------------------------------------------------------


def test_tuneds_own_disk_plugin_is_left_its_disks(fs: FakeDisks, engine: Disks) -> None:
    for name in ("loop0", "loop1"):
        fs.add(name, f"{LOOP}{name}")
    asked = policy.parse_sections(
        [Section("all", {"role": "host", "host_other": "bfq"})],
        [Section("disk", {"elevator": "noop"}, "loop0 sdx")],
    )
    assert lines(engine, asked) == [
        "verify: passed: 'blk_elevator_virt loop1/scheduler' = 'bfq'",
        "verify: note: blk_elevator_virt: loop0: left to TuneD's own disk plugin, which has"
        " elevator=noop in this profile: remove one of the two",
    ]
    assert fs.scheduler("loop0") == "none"


@pytest.mark.parametrize(
    ("administrators", "active", "remark"),
    [
        (True, "kyber", "left at kyber, which the udev rule F:3 sets: remove one"),
        (True, "none", ""),
        (False, "kyber", ""),
    ],
)
def test_udev_rules(
    fs: FakeDisks, engine: Disks, administrators: bool, active: str, remark: str
) -> None:
    fs.add("loop0", f"{LOOP}loop0", active=active)
    state = engine.tuner.read(fs, EVERYTHING, {})
    rule = SetElsewhere("F:3", "kyber", administrators)
    state = DiskState(state.disks, elsewhere={"loop0": (rule,)})
    [verdict] = judge(EVERYTHING, state, {})
    assert verdict.remark == remark
    notes = engine.tuner.decide(EVERYTHING, state, {}).notes
    assert len(notes) == 1
    assert "F:3" in notes[0]
