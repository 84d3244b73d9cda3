# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest in full: found by name, UUID or process; what is not known has its reason."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.schemas import valid
from tests.unit.proc_guests import FakeProc
from tuned_virt.cli import disks, guest_detail, guest_rows, guests, json_output, vcpu_waits
from tuned_virt.cli.common import CouldNot
from tuned_virt.model.host_facts import Fact
from tuned_virt.plugins.vm_pinning import held_placements

PAGES = "kernelpagesize_kB=4 N0=1024 N1=512"


@pytest.fixture
def fs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeProc:
    """Two nodes, and guests of whom web1 shares CPUs with two others."""
    made = FakeProc(tmp_path)
    made.node(0, "0-3")
    made.node(1, "4-7")
    made.guest(100, "web1", {0: "0-1", 1: "2-3"}, PAGES)
    made.guest(200, "web2", {0: "3", 1: "4"}, PAGES)
    made.guest(300, "db", {0: "0-7"}, PAGES)
    made.guest(400, "far", {0: "6"}, PAGES)
    made.thread(100, 102, "CPU 1/KVM", "2-3", ran=3)
    made.thread(100, 150, "IO iothread1", "0-3", ran=1)
    made.put("/proc/100/status", "VmSwap:\t    2048 kB\n")
    made.put("/proc/100/ksm_stat", "ksm_rmap_items 512\nksm_merging_pages 256\n")
    monkeypatch.setattr(held_placements, "everything", dict)
    monkeypatch.setattr(disks, "in_use", lambda fs: Fact(disks.DisksInUse([]), ""))
    return made


def detail(fs: FakeProc, name: str = "web1") -> tuple[guest_rows.GuestRow, dict[str, Any]]:
    everyone = guest_rows.find(fs)
    seen = guest_detail.chosen(everyone, name)
    waits = vcpu_waits.read(fs, [(seen.pid, seen.threads)])
    fs.waited(seen.pid, seen.pid + 1, 250_000_000)
    later = vcpu_waits.read(fs, [(seen.pid, seen.threads)])
    before = vcpu_waits.VcpuWaits(later.when - 1, waits.waited)
    return guest_detail.gather(fs, seen, everyone, before, later)


def test_one_guest_in_full(fs: FakeProc) -> None:
    row, found = detail(fs)
    threads = [
        (one["what"], one["cpus"], one["last_cpu"], one["delay_percent"])
        for one in found["threads"]
    ]
    assert threads == [
        ("vCPU 0", "0-1", 0, 25.0),
        ("vCPU 1", "2-3", 3, 0.0),
        ("IOThread 1", "0-3", 1, None),
        ("emulator", "0-7", 0, None),
    ]
    shared = [(one["guest"], one["vcpus"], one["cpus"]) for one in found["shares_cpus"]]
    assert shared == [("db", 1, "0-3"), ("web2", 1, "3")], "who shares most is first"
    assert [(one.node, one.page_kib, one.mib) for one in row.pages] == [(0, 4, 4), (1, 4, 2)]
    assert (found["swap_mib"], found["swap_error"]) == (2.0, "")
    page = os.sysconf("SC_PAGE_SIZE")
    assert (found["merged_mib"], found["ksm_error"]) == (256 * page / 2**20, "")


def test_only_its_own_pages_are_walked(fs: FakeProc) -> None:
    """Walking those of a guest of terabytes takes seconds."""
    fs.denied = {f"/proc/{pid}/numa_maps" for pid in (200, 300, 400)}
    row, _ = detail(fs)
    assert row.local == 66.7
    assert fs.listed["/proc"] == 1


def test_cannot_read_not_there_and_zero(fs: FakeProc) -> None:
    fs.put("/proc/100/status", "VmSwap:\t    0 kB\n")
    _, zero = detail(fs)
    assert (zero["swap_mib"], zero["swap_error"]) == (0.0, "")
    _, absent = detail(fs, "web2")
    assert (absent["swap_mib"], absent["swap_error"]) == (None, guest_detail.NO_SWAP)
    assert (absent["merged_mib"], absent["ksm_error"]) == (None, guest_detail.KSM_UNTOLD)
    fs.denied = {"/proc/100/status", "/proc/100/ksm_stat"}
    _, denied = detail(fs)
    assert denied["swap_error"] == "cannot read /proc/100/status: Permission denied"
    assert denied["ksm_error"] == "cannot read /proc/100/ksm_stat: Permission denied"


def test_by_name_uuid_or_process(fs: FakeProc) -> None:
    everyone = guest_rows.find(fs)
    for name in ("web1", "uuid-100", "100"):
        assert guest_detail.chosen(everyone, name).pid == 100
    fs.guest(500, "100", {0: "0"})
    assert guest_detail.chosen(guest_rows.find(fs), "100").pid == 500, "a name comes first"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wbe1", "no running guest is named 'wbe1': did you mean web1?"),
        ("WEB", "no running guest is named 'WEB': did you mean web1, web2?"),
        ("", "no running guest is named '': tuned-virt guests lists all"),
        ("mail", "no running guest is named 'mail': tuned-virt guests lists all"),
        ("a\x1b[2J", "no running guest is named 'a?[2J': tuned-virt guests lists all"),
    ],
)
def test_an_unknown_name(fs: FakeProc, name: str, said: str) -> None:
    with pytest.raises(CouldNot) as error:
        guest_detail.chosen(guest_rows.find(fs), name)
    assert str(error.value) == said


def test_no_guest_and_two_of_one_name(fs: FakeProc) -> None:
    with pytest.raises(CouldNot, match="no guest is running"):
        guest_detail.chosen([], "web1")
    fs.guest(900, "web1", {0: "0"})
    with pytest.raises(CouldNot, match="2 guests are named 'web1': give its process, 100 or 900"):
        guest_detail.chosen(guest_rows.find(fs), "web1")


def disk(name: str, *users: str) -> Any:
    attached = SimpleNamespace(kind=SimpleNamespace(value="NVMe"))
    found = SimpleNamespace(name=name, attached=attached, scheduler="none")
    return SimpleNamespace(disk=found, users=users, wanted="none", why="NVMe: it is fast")


def test_its_disks_and_why_they_are_not_known(
    fs: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = guest_detail.chosen(guest_rows.find(fs), "web1")
    known = [disk("nvme0n1", "db", "web1"), disk("sda", "db")]
    there = Fact(disks.DisksInUse(known, {"on the network: rbd": ("db",)}), "")
    monkeypatch.setattr(disks, "in_use", lambda fs: there)
    found = guest_detail.disks_of(fs, seen)
    assert [(one["disk"], one["class"]) for one in found["disks"]] == [("nvme0n1", "NVMe")]
    assert found["disks_error"] == ""
    remote = Fact(disks.DisksInUse(known[1:], {"on the network: rbd": ("web1",)}), "")
    monkeypatch.setattr(disks, "in_use", lambda fs: remote)
    assert guest_detail.disks_of(fs, seen) == {"disks": [], "disks_error": "on the network: rbd"}
    monkeypatch.setattr(disks, "in_use", lambda fs: Fact(disks.DisksInUse([]), ""))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert guest_detail.disks_of(fs, seen)["disks_error"] == disks.NOT_ROOT
    monkeypatch.setattr(disks, "in_use", lambda fs: Fact(None, "it is not asked"))
    assert guest_detail.disks_of(fs, seen) == {"disks": [], "disks_error": "it is not asked"}


def test_for_programs_and_for_people(fs: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    used = disks.DisksInUse([disk("nvme0n1", "web1")])
    monkeypatch.setattr(disks, "in_use", lambda fs: Fact(used, ""))
    look = guests.Look(fs, "web1")
    look.take(0.0)
    kind, content = look.content()
    [one] = valid(json_output.document(kind, content))["guests"]
    assert (kind, one["guest"], len(one["threads"])) == ("guest", "web1", 4)
    text = "\n".join(look.lines(80))
    for said in (
        "web1, process 100, UUID uuid-100",
        "placement: unplaced, decided by nobody: not managed by vm_pinning",
        "hurts most: remote memory",
        "    to mend: migratepages 100 1 0",
        "vCPU 1         102  2-3                   3",
        "in swap: 2.0 MiB",
        "Disks:",
        "nvme0n1  NVMe   none       none    NVMe: it is fast",
    ):
        assert said in text
