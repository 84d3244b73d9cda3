# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt disks`, over fake disks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.unit.blockdev import LOOP, VIRTIO, FakeDisks, hba
from tuned_virt import cli
from tuned_virt.cli import disks as command
from tuned_virt.core.guest_source import FixedGuests
from tuned_virt.core.options import Section
from tuned_virt.core.originals import Originals
from tuned_virt.libvirt_api.guest_disks import GuestDisks
from tuned_virt.model.host_facts import BackingDisk
from tuned_virt.plugins.blk_elevator_virt import parse
from tuned_virt.plugins.blk_elevator_virt.policy import DiskPolicy, MachineRole, parse_sections
from tuned_virt.plugins.blk_elevator_virt.policy_in_force import PolicyInForce


@pytest.fixture
def fs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDisks:
    made = FakeDisks(tmp_path / "root")
    made.add("vda", f"{VIRTIO}vda", queues=4)
    made.add("vdb", f"{VIRTIO}vdb")
    made.add("dm-0", f"{LOOP}dm-0", offered="", dm__uuid="LVM-x")
    made.slaves("dm-0", "vda", "vdb")
    made.add("zram0", f"{LOOP}zram0", offered="")
    monkeypatch.setattr(command, "KernelFS", lambda: made)
    monkeypatch.setattr(command, "Originals", lambda: Originals(tmp_path / "run", "boot"))
    monkeypatch.setattr(command, "PolicyInForce", lambda: PolicyInForce(tmp_path / "run"))
    monkeypatch.setattr(command, "_libvirt", lambda: FixedGuests({}))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("COLUMNS", "200")
    return made


def in_force(tmp_path: Path, policy: DiskPolicy) -> None:
    PolicyInForce(tmp_path / "run").save(policy)
    Originals(tmp_path / "run", "boot").keep("blk_elevator_virt", {"vdb#4/scheduler": "none"})


GUEST = parse({"role": "guest", "guest_virtio": "queues"})

TABLE = """\
disk  class          decided by    backs  now   wanted       why
dm-0  device-mapper  dm/uuid: LVM  -      -     -            its requests go to vda, vdb
vda   virtio-blk     virtio_blk    -      none  none         guest_virtio=none
vdb   virtio-blk     virtio_blk    -      none  mq-deadline  guest_virtio=deadline
"""


def test_each_disk_with_class_fact_and_reason(
    fs: FakeDisks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"vda": "none", "vdb": "deadline"}
    sections = [
        Section(name, {"role": "guest", "guest_virtio": word}, name) for name, word in words.items()
    ]
    in_force(tmp_path, parse_sections(sections, ()))
    assert cli.main(["disks"]) == 1
    shown = capsys.readouterr().out
    assert "".join(f"{line.rstrip()}\n" for line in shown.splitlines()) == TABLE
    fs.write("/sys/block/vdb/queue/scheduler", "mq-deadline")
    assert cli.main(["disks", "--all"]) == 0
    assert "zram0" in capsys.readouterr().out


def test_json(fs: FakeDisks, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_force(tmp_path, GUEST)
    cli.main(["disks", "--json"])
    content = json.loads(capsys.readouterr().out)
    assert (content["active"], content["notes"]) == (True, [])
    by_name = {disk["disk"]: disk for disk in content["disks"]}
    assert by_name["dm-0"]["made_of"] == ["vda", "vdb"]
    assert by_name["vda"] == {
        "disk": "vda",
        "class": "virtio-blk",
        "emulated": True,
        "fact": "virtio_blk",
        "backs": [],
        "made_of": [],
        "queues": 4,
        "offered": ["none", "mq-deadline", "kyber", "bfq"],
        "scheduler": "none",
        "wanted": "none",
        "option": "guest_virtio",
        "why": "virtio-blk: guest_virtio=queues, 4 queues",
        "remark": "",
        "before": None,
    }


def test_without_a_profile_it_says_what_the_defaults_would_do(
    fs: FakeDisks, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["disks"]) == 0
    assert command.NO_POLICY in capsys.readouterr().out


def test_udev_rules_are_printed_or_written(
    fs: FakeDisks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_force(tmp_path, GUEST)
    assert cli.main(["disks", "--udev-rule"]) == 0
    printed = capsys.readouterr().out
    assert 'TEST=="mq/1", ATTR{queue/scheduler}="none"' in printed
    file = tmp_path / "rules"
    assert cli.main(["disks", "--udev-rule", str(file)]) == 0
    assert file.read_text() == printed
    assert cli.main(["disks", "--udev-rule", str(tmp_path / "no/rules")]) == 2
    assert "No such file or directory" in capsys.readouterr().err


def test_the_policy_in_force_is_kept_and_read_again(tmp_path: Path) -> None:
    record = PolicyInForce(tmp_path / "new")
    assert record.load() is None
    record.save(GUEST)
    assert record.load() == GUEST
    (tmp_path / "new/disks.json").write_text('{"sections": [{}]}')
    assert record.load() is None
    record.remove()
    record.remove()


def test_a_stranger_is_told_what_only_root_sees(
    fs: FakeDisks, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    cli.main(["disks"])
    assert command.NOT_ROOT in capsys.readouterr().out


def test_disks_that_guests_are_on_for_the_audit(
    fs: FakeDisks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hba(fs, "sda", 0)
    fs.number("sda", "8:0")
    fs.file("/proc/self/mountinfo", "21 1 8:0 / / rw - ext4 /dev/sda rw\n")
    web = GuestDisks("u1", "web", ("/images/web.img",))
    monkeypatch.setattr(command, "_libvirt", lambda: FixedGuests({"u1": web}))
    monkeypatch.setattr(command, "own_role", lambda fs: MachineRole.HOST)
    in_force(tmp_path, parse({"role": "host", "host_backing": "mq-deadline"}))
    found = command.backing(fs).get()
    why = "SCSI HBA, backs web: host_backing=mq-deadline"
    assert found == {"sda": BackingDisk(("web",), "none", "mq-deadline", why)}
    in_force(tmp_path, parse({"role": "host", "host_backing": "keep"}))
    assert "does not ask" in command.backing(fs).why
