# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests as they are read from /proc: what hurts most is first, what cannot be read is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.proc_guests import FakeProc
from tuned_virt.cli import guest_rows, vcpu_waits
from tuned_virt.cli.guest_rows import GuestRow
from tuned_virt.cli.vcpu_waits import VcpuWaits
from tuned_virt.placement import MemoryPlacement, Placement, PlacementKind
from tuned_virt.plugins.vm_pinning import held_placements
from tuned_virt.plugins.vm_pinning.held_placements import HeldPlacement

SYSTEM = "qemu:///system"
LOCAL = "kernelpagesize_kB=4 N0=1024"


@pytest.fixture
def fs(tmp_path: Path) -> FakeProc:
    """A host of two nodes with four CPUs each."""
    made = FakeProc(tmp_path)
    (tmp_path / "proc").mkdir()
    made.node(0, "0-3")
    made.node(1, "4-7")
    return made


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[HeldPlacement]]:
    """What vm_pinning holds, by URI."""
    found: dict[str, list[HeldPlacement]] = {}
    monkeypatch.setattr(held_placements, "everything", lambda: found)
    return found


def placed(pid: int, name: str, cpus: str = "0-3", **more: object) -> HeldPlacement:
    placement = Placement(
        *(name, f"uuid-{pid}", PlacementKind.SHARED, (0,), {0: cpus}, "0-3", {}, None, "fits")
    )
    one = HeldPlacement(f"{name}/1", f"uuid-{pid}", name, name, pid, placement)
    return replace(one, **more)  # type: ignore[arg-type]


def look(fs: FakeProc, waits: dict[int, int] | None = None, seconds: float = 2.0) -> list[GuestRow]:
    """Rows after so many seconds, in which threads have waited so long, by process."""
    guests = guest_rows.find(fs)
    watched = [(one.pid, one.threads) for one in guests]
    before = vcpu_waits.read(fs, watched)
    for pid, waited in (waits or {}).items():
        fs.waited(pid, pid + 1, waited)
    now = vcpu_waits.read(fs, watched)
    before, now = replace(before, when=100.0), replace(now, when=100.0 + seconds)
    return guest_rows.rows(fs, guests, before, now)


def test_what_hurts_most_is_first(fs: FakeProc, held: dict[str, list[HeldPlacement]]) -> None:
    remote = "kernelpagesize_kB=4 N0=1024 N1=3072"
    refused = replace(placed(0, "").placement, ungranted="policy=dedicated")
    none = Placement("x", "", PlacementKind.UNPLACED, (), {}, "", {}, None, "no room")
    for pid, (name, cpus, pages) in enumerate(
        (
            ("a-fine", "0-3", LOCAL), ("b-remote", "0-3", remote), ("c-waits", "0-3", LOCAL),
            ("d-waits-more", "0-3", LOCAL), ("e-drift", "0-7", LOCAL), ("f-unplaced", "0-7", LOCAL),
            ("g-ungranted", "0-3", LOCAL), ("h-idle-unplaced", "0-7", LOCAL),
        ),
        1,
    ):  # fmt: skip
        fs.guest(pid * 100, name, {0: cpus}, pages)
        fs.thread(pid * 100, pid * 100, "qemu", "0-3")
        held.setdefault(SYSTEM, []).append(placed(pid * 100, name))
    some = held[SYSTEM]
    some[5], some[7] = replace(some[5], placement=none), replace(some[7], placement=none)
    some[6] = replace(some[6], placement=refused)
    found = look(fs, {300: 200_000_000, 400: 900_000_000, 600: 150_000_000, 100: 90_000_000})
    assert [(one.guest[0], guest_rows.problem(one).value) for one in found] == [
        ("g", "not granted"),
        ("f", "not placed"),
        ("e", "drift"),
        ("d", "delay"),
        ("c", "delay"),
        ("b", "remote memory"),
        ("a", ""),
        ("h", ""),
    ]
    by_name = {one.guest[0]: one for one in found}
    assert by_name["d"].delay_percent == 45.0, "900 ms of 2 s"
    assert (by_name["d"].interval_s, by_name["d"].delay_ms) == (2.0, 900.0)
    assert by_name["b"].mend == ("migratepages 200 1 0",)
    assert by_name["e"].mend == ("virsh vcpupin e-drift 0 0-3 --live",)
    assert by_name["e"].vcpus == {0: "0-7"}, "where it may run, not where it should"


def test_cannot_read_not_there_and_zero_are_three_things(
    fs: FakeProc, held: dict[str, list[HeldPlacement]]
) -> None:
    fs.guest(100, "zero", {0: "0-3"}, LOCAL)
    fs.guest(200, "no-count", {0: "0-3"})
    fs.guest(300, "empty-count", {0: "0-3"})
    fs.guest(400, "hidden", {0: "0-3"}, LOCAL)
    fs.guest(500, "shut", {0: "0-3"}, LOCAL)
    (Path(fs.root) / "proc/200/task/201/schedstat").unlink()
    fs.put("/proc/300/task/301/schedstat", "0 0 0\n")
    fs.denied = {"/proc/400/task/401/schedstat", "/proc/400/numa_maps", "/proc/500/task"}
    rows = {one.guest: one for one in look(fs)}
    assert (rows["zero"].delay_percent, rows["zero"].delay_error) == (0.0, "")
    for name in ("no-count", "empty-count"):
        assert (rows[name].delay_percent, rows[name].delay_ms) == (None, None)
        assert rows[name].delay_error == vcpu_waits.NOT_COUNTED
    assert (rows["no-count"].local, rows["no-count"].memory_error) == (None, "")
    assert rows["hidden"].delay_error.startswith("cannot read /proc/400/task/401/schedstat: Perm")
    assert rows["hidden"].memory_error == "cannot read /proc/400/numa_maps: Permission denied"
    assert rows["hidden"].local is None
    assert rows["shut"].threads_error == "cannot read /proc/500/task: Permission denied"
    assert guest_rows.problem(rows["shut"]).value == "cannot be read"


def test_memory_is_local_to_where_a_guest_may_run_or_should_be(
    fs: FakeProc, held: dict[str, list[HeldPlacement]]
) -> None:
    """Also of guests that nobody has placed; pages on a node that the owner named are local."""
    half = "kernelpagesize_kB=4 N0=1024 N1=1024"
    fs.guest(100, "by-hand", {0: "5"}, half)
    fs.guest(200, "floats", {0: "0-7"}, half)
    fs.guest(300, "owner", {0: "0-3"}, half)
    fs.guest(400, "huge", {0: "4"}, "kernelpagesize_kB=2048 N0=8")
    fs.guest(500, "far", {0: "0"}, half)
    cells = replace(
        placed(300, "owner").placement,
        kind=PlacementKind.OWNER,
        memory=MemoryPlacement("strict", "1", {}),
    )
    held["qemu:///other"] = [placed(300, "owner", placement=cells), placed(500, "far", "1")]
    rows = {one.guest: one for one in look(fs)}
    local = {"by-hand": 50.0, "floats": 100.0, "owner": 50.0, "huge": 0.0, "far": 50.0}
    assert {name: one.local for name, one in rows.items()} == local
    assert rows["by-hand"].mend == ("migratepages 100 0 1",)
    assert rows["owner"].mend == (), "the owner has decided"
    assert rows["huge"].mend == (), "huge pages are not moved"
    assert rows["far"].mend == (
        "virsh -c qemu:///other vcpupin far 0 1 --live",
        "virsh -c qemu:///other emulatorpin far 0-3 --live",
        "migratepages 500 1 0",
    )


def test_many_guests_are_one_pass_over_proc(
    fs: FakeProc, held: dict[str, list[HeldPlacement]]
) -> None:
    for pid in range(1000, 1100, 10):
        fs.guest(pid, f"g{pid}", {0: "0-3", 1: "0-3"}, LOCAL)
    assert len(look(fs)) == 10
    assert fs.listed["/proc"] == 1
    assert all(fs.listed[f"/proc/{pid}/task"] == 1 for pid in range(1000, 1100, 10))


def test_a_guest_that_ends_meanwhile_and_a_thread_number_used_again(
    fs: FakeProc, held: dict[str, list[HeldPlacement]]
) -> None:
    fs.guest(100, "ends", {0: "0-3"}, LOCAL)
    fs.guest(200, "stays", {0: "0-3"}, LOCAL)
    guests = guest_rows.find(fs)
    before = VcpuWaits(1.0, {200: {(201, "another"): 5}})
    for file in Path(fs.root, "proc/100/task").glob("*/*"):
        file.unlink()
    now = vcpu_waits.read(fs, [(one.pid, one.threads) for one in guests])
    [row] = guest_rows.rows(fs, guests, before, now)
    assert (row.guest, row.delay_percent, row.delay_error) == ("stays", None, "")
