# SPDX-License-Identifier: GPL-2.0-or-later
"""Weights of guests, with a libvirt of our own: tests/system/test_blkio.py has the real one."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.blockdev import LOOP, FakeDisks
from tuned_virt.core.engine import Engine
from tuned_virt.core.guest_source import NO_GUESTS
from tuned_virt.core.journal import Journal
from tuned_virt.core.options import BadOptions, Section
from tuned_virt.core.originals import Originals
from tuned_virt.core.plan_runner import PlanRunner
from tuned_virt.kernel import timeouts
from tuned_virt.kernel.files import KernelFileError
from tuned_virt.libvirt_api.guest_weights import (
    NoWeightsTold,
    WeightError,
    Weights,
    device_weights,
    has_weights,
)
from tuned_virt.plugins.vm_blkio import BlkioTuner, WeightPolicy, WeightState, parse
from tuned_virt.plugins.vm_blkio.policy import parse_sections


class FakeLibvirt:
    """Guests with weights; `hangs` is a libvirtd that does not answer until it is set."""

    def __init__(self, *guests: Weights) -> None:
        self.guests = {guest.uuid: guest for guest in guests}
        self.writes: list[tuple[str, str, int | str]] = []
        self.hangs: threading.Event | None = None
        self.unavailable = ""
        self.refusal = WeightError
        self.takes_nothing_away = False
        self.told = 0
        self.events = NO_GUESTS

    def read(self, uuid: str = "") -> list[Weights]:
        if self.hangs:
            self.hangs.wait()
        if self.unavailable:
            raise self.refusal(self.unavailable)
        found = [guest for guest in self.guests.values() if uuid in ("", guest.uuid)]
        self.told += len(found)
        return found

    def write(self, uuid: str, run: int, parameter: str, value: int | str) -> None:
        guest = self.guests[uuid]
        if guest.run != run:
            raise WeightError("the guest has been restarted meanwhile")
        self.writes.append((uuid, parameter, value))
        if parameter == "weight":
            self.guests[uuid] = replace(guest, weight=int(value))
        else:
            given = device_weights(str(value))
            if self.takes_nothing_away:
                given = {path: weight or guest.weight or 0 for path, weight in given.items()}
            devices = {**guest.devices, **given}
            devices = {path: weight for path, weight in devices.items() if weight}
            self.guests[uuid] = replace(guest, devices=devices)


WEB = Weights("u1", 1, "web", 100, {"/dev/sdb": 300})
DB = Weights("u2", 2, "db", 500)

Weighing = Engine[WeightPolicy, WeightState]


@pytest.fixture
def fs(tmp_path: Path) -> FakeDisks:
    made = FakeDisks(tmp_path / "root")
    made.file("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory")
    made.add("loop0", f"{LOOP}loop0", active="bfq")
    return made


def engine(fs: FakeDisks, tmp_path: Path, libvirt: FakeLibvirt) -> Weighing:
    tuner = BlkioTuner(libvirt)
    return Engine(tuner, fs, Originals(tmp_path, "boot"), Journal(tmp_path / "journal"))


def lines(weighing: Weighing, asked: WeightPolicy) -> list[str]:
    return [str(line) for line in weighing.verify(weighing.apply(asked), asked, False)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"blkio_weight": "9"}, "'blkio_weight': '9' is not valid: a whole number from 10 to 1000"),
        ({"blkio_weight": "1001"}, "'1001' is not valid"),
        ({"blkio_weight": ">100"}, "'>100' is not valid"),
        ({"blkio_weight": "much"}, "'much' is not valid"),
        ({"device_weights": "/dev/sda"}, "'/dev/sda' is not valid: /path/of/disk,weight"),
        ({"device_weights": "sda,500"}, "'sda,500' is not valid"),
        ({"device_weights": "/dev/../etc/x,500"}, "'/dev/../etc/x,500' is not valid"),
        ({"device_weights": "/dev/sda,5"}, "'device_weights': '5' is not valid: a whole number"),
    ],
)
def test_bad_input_is_named(options: dict[str, str], said: str) -> None:
    with pytest.raises(BadOptions) as error:
        parse(options)
    assert said in str(error.value)


def test_a_udev_regex_selects_no_guests() -> None:
    with pytest.raises(BadOptions, match="guests have no udev properties"):
        parse_sections([Section("x", {"blkio_weight": "100"}, udev_regex="x")])


def test_weights_are_set_verified_and_put_back(fs: FakeDisks, tmp_path: Path) -> None:
    libvirt = FakeLibvirt(WEB, DB)
    weighing = engine(fs, tmp_path, libvirt)
    asked = parse_sections(
        [
            Section("a", {"blkio_weight": "800"}, "db*"),
            Section("b", {"device_weights": "/dev/sda,500,/dev/sdb,0"}, "u1"),
        ]
    )
    assert lines(weighing, asked) == [
        "verify: passed: 'vm_blkio web/device_weight /dev/sda' = '500'",
        "verify: passed: 'vm_blkio web/device_weight /dev/sdb' = '0'",
        "verify: passed: 'vm_blkio db/blkio_weight' = '800'",
    ]
    assert libvirt.guests["u1"].devices == {"/dev/sda": 500}
    weighing.restore()
    assert list(libvirt.guests.values()) == [WEB, DB]
    assert weighing.originals.all() == {}


@pytest.mark.parametrize(
    ("refusal", "said"),
    [(NoWeightsTold, "failed: vm_blkio: weights: "), (WeightError, "note: vm_blkio: ")],
)
def test_who_does_not_answer_fails_verify_and_who_is_not_there_does_not(
    refusal: type[WeightError], said: str, fs: FakeDisks, tmp_path: Path
) -> None:
    libvirt = FakeLibvirt(WEB)
    libvirt.unavailable, libvirt.refusal = "no word from it", refusal
    asking = engine(fs, tmp_path, libvirt)
    found = lines(asking, parse({"blkio_weight": "300"}))
    assert found == [f"verify: {said}guests are unknown: no word from it"]


def test_a_device_whose_weight_cannot_be_taken_away_has_its_guests(
    fs: FakeDisks, tmp_path: Path
) -> None:
    libvirt = FakeLibvirt(DB)
    libvirt.takes_nothing_away = True
    weighing = engine(fs, tmp_path, libvirt)
    options = {"blkio_weight": "300", "device_weights": "/dev/sdb,400"}
    assert weighing.apply(parse(options)).failed == {}
    restored = weighing.restore()
    assert restored.failed == {}
    assert (libvirt.guests["u2"].weight, libvirt.guests["u2"].devices) == (500, {"/dev/sdb": 500})
    assert weighing.originals.all() == {}


def test_what_libvirt_is_asked_grows_with_guests_not_with_their_square(
    fs: FakeDisks, tmp_path: Path
) -> None:
    """Each write had all guests read: with six, under emulation, none was in time."""
    libvirt = FakeLibvirt(
        *(Weights(f"u{number}", number, f"web{number}", 100) for number in range(1, 21))
    )
    engine(fs, tmp_path, libvirt).apply(parse({"blkio_weight": "200"}))
    assert len(libvirt.writes) == 20
    assert libvirt.told <= 3 * 20


def test_a_second_apply_writes_nothing(fs: FakeDisks, tmp_path: Path) -> None:
    libvirt = FakeLibvirt(WEB)
    weighing = engine(fs, tmp_path, libvirt)
    asked = parse({"blkio_weight": "200"})
    weighing.apply(asked)
    weighing.apply(asked)
    assert libvirt.writes == [("u1", "weight", 200)]


def test_a_guest_with_weights_of_its_own_is_left_alone(fs: FakeDisks, tmp_path: Path) -> None:
    libvirt = FakeLibvirt(replace(WEB, owned=True))
    weighing = engine(fs, tmp_path, libvirt)
    assert lines(weighing, parse({"blkio_weight": "200"})) == [
        "verify: note: vm_blkio: web: not changed, its XML sets weights itself"
    ]
    assert libvirt.writes == []


@pytest.mark.parametrize("excluded", ["!web", "!u1", "* !web", "!u*,db !web", "!we?"])
def test_a_negative_rule_excludes_a_guest_by_name_or_uuid(
    fs: FakeDisks, tmp_path: Path, excluded: str
) -> None:
    libvirt = FakeLibvirt(WEB, replace(DB, uuid="x2"))
    asked = parse_sections([Section("x", {"blkio_weight": "200"}, excluded)])
    assert lines(engine(fs, tmp_path, libvirt), asked) == [
        "verify: passed: 'vm_blkio db/blkio_weight' = '200'"
    ]
    assert libvirt.writes == [("x2", "weight", 200)]


def test_an_excluded_guest_falls_to_a_later_section(fs: FakeDisks, tmp_path: Path) -> None:
    libvirt = FakeLibvirt(WEB, DB)
    sections = [
        Section("most", {"blkio_weight": "200"}, "!web"),
        Section("rest", {"blkio_weight": "300"}),
    ]
    engine(fs, tmp_path, libvirt).apply(parse_sections(sections))
    assert sorted(libvirt.writes) == [("u1", "weight", 300), ("u2", "weight", 200)]


def test_a_restarted_guest_is_set_again_and_its_past_forgotten(
    fs: FakeDisks, tmp_path: Path
) -> None:
    libvirt = FakeLibvirt(WEB)
    weighing = engine(fs, tmp_path, libvirt)
    asked = parse({"blkio_weight": "200"})
    outcome = weighing.apply(asked)
    libvirt.guests["u1"] = replace(WEB, run=7, weight=150)
    assert [str(line) for line in weighing.verify(outcome, asked, False)] == [
        "verify: note: vm_blkio: web/blkio_weight: the guest has stopped"
    ]
    weighing.apply(asked)
    weighing.restore()
    assert libvirt.guests["u1"].weight == 150


def test_where_no_controller_holds_weights(fs: FakeDisks, tmp_path: Path) -> None:
    fs.file("/sys/fs/cgroup/cgroup.controllers", "cpu memory")
    [line] = lines(engine(fs, tmp_path, FakeLibvirt(WEB)), parse({"blkio_weight": "200"}))
    assert line == (
        "verify: failed: vm_blkio: web/blkio_weight: no cgroup controller holds weights: neither io"
        " (cgroup v2) nor blkio (v1) is there"
    )


def test_where_nothing_heeds_weights(fs: FakeDisks, tmp_path: Path) -> None:
    fs.write("/sys/block/loop0/queue/scheduler", "none")
    weighing = engine(fs, tmp_path, FakeLibvirt(WEB))
    asked = parse({"blkio_weight": "200"})
    assert "weights have no effect: no disk has the scheduler bfq" in lines(weighing, asked)[1]
    fs.file("/sys/fs/cgroup/io.cost.qos", "8:0 enable=1 ctrl=auto")
    assert len(lines(weighing, asked)) == 1


def test_where_libvirt_has_no_cgroup(fs: FakeDisks, tmp_path: Path) -> None:
    bare = replace(WEB, weight=None, devices={})
    [line] = lines(engine(fs, tmp_path, FakeLibvirt(bare)), parse({"blkio_weight": "200"}))
    assert "see cgroup_controllers in libvirt's qemu.conf" in line


def test_a_libvirtd_that_hangs_or_is_gone(
    fs: FakeDisks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "GUEST_WEIGHTS", 0.1)
    libvirt = FakeLibvirt(WEB)
    weighing = engine(fs, tmp_path, libvirt)
    asked = parse({"blkio_weight": "200"})
    weighing.apply(asked)
    libvirt.unavailable = "libvirtd is gone"
    weighing.restore()
    pending = weighing.originals.record("vm_blkio").pending
    assert pending == {"web#u1.1/blkio_weight": "libvirtd is gone"}
    libvirt.unavailable, libvirt.hangs = "", threading.Event()
    weighing.restore()
    assert "libvirt does not answer" in str(weighing.originals.record("vm_blkio").pending)
    libvirt.hangs.set()
    while weighing.tuner._workers.busy:  # type: ignore[attr-defined]
        pass
    weighing.restore()
    assert libvirt.guests["u1"] == WEB


class Nodes(FakeDisks):
    """One disk, at /dev/sdb."""

    broken = False

    def device_number(self, path: str) -> str:
        if self.broken:
            raise KernelFileError(path, "Input/output error")
        return "8:16" if path == "/dev/sdb" else ""


def test_what_libvirt_did_not_do_is_tried_again(
    fs: FakeDisks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A libvirtd was too busy for one guest, and verify failed for good."""
    monkeypatch.setattr(timeouts, "RETRY_REFUSED", 0.01)
    libvirt = FakeLibvirt(WEB)
    busy = [WeightError("cannot acquire state change lock")] * 3
    monkeypatch.setattr(libvirt, "write", lambda *asked: _raise_first(busy, libvirt, asked))
    runner = PlanRunner(engine(fs, tmp_path, libvirt))
    runner.apply(parse({"blkio_weight": "500"}))
    deadline = time.monotonic() + 20
    while libvirt.guests["u1"].weight != 500 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert libvirt.guests["u1"].weight == 500
    assert caplog.text.count("cannot acquire state change lock") == 1
    busy.append(WeightError("cannot acquire state change lock"))
    runner.apply(parse({"blkio_weight": "300"}))
    assert caplog.text.count("cannot acquire state change lock") == 2, "asked anew"
    runner.restore()


def _raise_first(errors: list[WeightError], libvirt: FakeLibvirt, asked: tuple[Any, ...]) -> None:
    if errors:
        raise errors.pop()
    FakeLibvirt.write(libvirt, *asked)


def test_a_disk_at_the_path_of_another_keeps_what_it_has(tmp_path: Path) -> None:
    fs = Nodes(tmp_path / "root")
    fs.file("/sys/fs/cgroup/cgroup.controllers", "io")
    for original in (300, 200):
        fs.add("sdb", f"{LOOP}sdb", active="bfq")
        fs.number("sdb", "8:16")
        libvirt = FakeLibvirt(replace(WEB, devices={"/dev/sdb": original}))
        weighing = engine(fs, tmp_path, libvirt)
        weighing.apply(parse({"device_weights": "/dev/sdb,900"}))
        if original == 300:
            (tmp_path / "root/sys/dev/block/8:16").unlink()
            fs.pull("sdb")
            fs.add("sdb", f"{LOOP}sdb", active="bfq")
            fs.number("sdb", "8:16")
            libvirt.guests["u1"] = replace(WEB, devices={})
        else:
            vars(fs)["broken"] = True
            weighing.restore()
            assert list(weighing.originals.record("vm_blkio").pending.values()) == [
                "it is not known which disk /dev/sdb is: cannot read /dev/sdb: Input/output error"
            ]
            vars(fs)["broken"] = False
        weighing.restore()
        assert libvirt.guests["u1"].devices == ({} if original == 300 else {"/dev/sdb": 200})
        assert weighing.originals.all() == {}
        (tmp_path / "root/sys/dev/block/8:16").unlink()
        fs.pull("sdb")


@pytest.mark.parametrize(
    ("xml", "own"),
    [
        ("<domain><blkiotune><weight>800</weight></blkiotune></domain>", True),
        ("<domain><blkiotune><device><weight>1</weight></device></blkiotune></domain>", True),
        ("<domain><blkiotune/></domain>", False),
        ("<domain/>", False),
        ("<broken", True),
    ],
)
def test_weights_of_the_owner(xml: str, own: bool) -> None:
    assert has_weights(xml) is own
