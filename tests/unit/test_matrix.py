# SPDX-License-Identifier: GPL-2.0-or-later
"""Which machines `make check-matrix` boots, what it tells them, and what its table says."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from tests import sandbox
from tests.matrix import images, inside, machine
from tests.matrix.cells import CORNER, FACTORS, SUITES, Cell, chosen, covering, every, pairs
from tests.matrix.state import differences, guest_settings, of_every_boot
from tests.matrix.table import STEPS, Result, Step, shown
from tests.vm import boot


def test_each_pair_of_values_meets_in_some_cell() -> None:
    wanted = {
        ((first, value), (second, other))
        for (first, values), (second, others) in itertools.combinations(enumerate(FACTORS), 2)
        for value in values
        for other in others
    }
    assert pairs(covering()) == wanted
    assert len(covering()) == 9


def test_the_full_product_has_each_cell_once() -> None:
    assert len(set(every())) == len(every()) == 54


def test_one_cell_is_named_by_its_values() -> None:
    assert chosen("6.12/2.25/v2/4") == [Cell("6.12", "2.25", "v2", "4")]
    assert [str(cell) for cell in chosen("corner 6.1/2.20/v1/1")] == [CORNER, "6.1/2.20/v1/1"]


def test_a_star_is_any_value_and_no_cell_comes_twice() -> None:
    assert len(chosen("*/2.20/v2/*")) == 9
    assert chosen("pairs pairs") == covering()
    assert len(chosen("*")) == 54


@pytest.mark.parametrize("wrong", ["6.12/2.25/v2/3", "6.12", "all"])
def test_what_is_no_cell_is_named(wrong: str) -> None:
    with pytest.raises(ValueError, match=f"CELLS: {wrong} is no cell; one is 6.12/2.25/v2/2"):
        chosen(f"{CORNER} {wrong}")


def test_each_tuned_comes_with_its_own_debian_but_where_that_has_no_v1() -> None:
    assert SUITES == sandbox.SUITES
    others = [cell for cell in every() if cell.suite != cell.own_suite]
    assert {(cell.tuned, cell.cgroup, cell.suite) for cell in others} == {
        ("latest", "v1", "trixie")
    }
    assert all("systemd 258" in cell.remark for cell in others)


def test_each_kernel_is_in_some_suite() -> None:
    assert [boot.suite_of(kernel) for kernel in FACTORS[0]] == ["bookworm", "trixie", "sid"]


@pytest.mark.parametrize("nodes", FACTORS[3])
def test_a_topology_has_all_memory_and_all_cpus(nodes: str) -> None:
    options = list(machine.numa(nodes))
    objects = [one for one in options if one.startswith("memory-backend")]
    sizes = [one.partition("size=")[2] for one in objects]
    assert sum(int(one[:-1]) << (10 if one.endswith("G") else 0) for one in sizes) == 2048
    assert len([one for one in options if one.startswith("node,")]) == int(nodes)


def test_one_of_two_nodes_has_no_memory() -> None:
    options = list(machine.numa("2"))
    assert [one for one in options if one.startswith("node,")] == [
        "node,nodeid=0,cpus=0-2,memdev=m0",
        "node,nodeid=1,cpus=3",
    ]


def test_an_unfinished_line_is_not_read(tmp_path: Path) -> None:
    assert machine.reported(tmp_path) == []
    line = json.dumps({"step": "boot", "seconds": 1.5, "failure": ""})
    (tmp_path / "report").write_text(f'{line}\r\n{{"step"')
    assert machine.steps(machine.reported(tmp_path)) == [Step("boot", 1.5)]


def test_the_table_says_what_failed_and_what_was_not_reached() -> None:
    whole = Result(Cell("6.1", "2.20", "v2", "1"), [Step(name, 2.4) for name in STEPS], 24)
    cut = Result(Cell("7", "latest", "v1", "4"), [Step("boot", 30), Step("switch", 4, "why")], 40)
    lines = shown([whole, cut]).splitlines()
    assert lines[0].split()[:3] == ["cell", "boot", "switch"]
    assert lines[1].split() == ["6.1/2.20/v2/1", *["2"] * len(STEPS), "24", "passed"]
    assert lines[2].split() == [
        "7/latest/v1/4",
        "30",
        "4!",
        *["-"] * (len(STEPS) - 2),
        "40",
        "FAILED",
    ]
    assert "7/latest/v1/4: on trixie: systemd 258" in lines[4]
    assert lines[-1].startswith("1 of 2 cells passed")


def test_a_machine_that_ended_early_has_not_passed() -> None:
    steps = [Step(name, 1) for name in STEPS]
    assert Result(chosen(CORNER)[0], steps).passed
    assert not Result(chosen(CORNER)[0], steps[:-1]).passed
    broken = Result(chosen(CORNER)[0], steps, broken="the kernel panicked")
    assert not broken.passed
    assert broken.failures == ["the kernel panicked"]


def test_what_differs_is_named_with_both_values() -> None:
    before = {"/proc/sys/a": "1", "mount /x ext4": "y", "thread 1/1 a": "CPUs 0"}
    now = {"/proc/sys/a": "2", "module kvm": "loaded", "thread 1/2 b": "CPUs 1"}
    assert differences(before, now) == [
        "/proc/sys/a: 1 → 2",
        "module kvm: not there → loaded",
        "mount /x ext4: y → not there",
    ]
    assert differences({"thread 1/1 a": "CPUs 0"}, {"thread 1/1 a": "CPUs 1"})


def test_of_long_texts_the_lines_that_differ_are_shown() -> None:
    assert differences({"x": "a\nb\nc"}, {"x": "a\nd\nc"}) == ["x: -b +d"]


def test_what_libvirt_cannot_take_away_is_no_difference() -> None:
    pins = "<vcpupin vcpu='0' cpuset='0-3'/><emulatorpin cpuset='0-3'/><shares>100</shares>"
    tag = "<x:placement xmlns:x='urn:tuned-virt-plus:placement:1' vcpus='0=0-3'/>"
    tuned = f"<domain><metadata>{tag}</metadata><cputune>{pins}</cputune><name>a</name></domain>"
    assert guest_settings(tuned) == guest_settings("<domain><name>a</name></domain>")
    owned = "<domain><cputune><quota>7</quota></cputune><metadata><own/></metadata></domain>"
    assert "quota" in guest_settings(owned)
    assert "own" in guest_settings(owned)


def test_after_a_reboot_settings_and_mounts_count() -> None:
    found = {"/proc/sys/a": "1", "thread 1/1 a": "x", "guest g": "<domain/>", "mount / ext4": "y"}
    assert of_every_boot(found) == {"/proc/sys/a": "1", "mount / ext4": "y"}


def test_a_guest_halts_where_an_x86_begins() -> None:
    rom = inside.rom()
    assert len(rom) == 64 << 10
    assert rom[-16:-12] == bytes.fromhex("fa f4 eb fd")  # cli; hlt; jmp to the hlt


def test_tuned_begins_without_a_profile(tmp_path: Path) -> None:
    for folder in ("etc/systemd/system", "etc/tuned"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/tuned/active_profile").write_text("balanced\n")
    images.quieten(tmp_path)
    assert not (tmp_path / "etc/tuned/active_profile").read_text()
    assert (tmp_path / "etc/tuned/profile_mode").read_text() == "manual\n"


@pytest.mark.parametrize(
    ("failure", "seconds", "boots"),
    [("", 600.0, 1), ("no answer", 10.0, 1), ("no answer", 600.0, 2)],
)
def test_a_machine_whose_clock_jumped_is_booted_once_more(
    failure: str, seconds: float, boots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call of D-Bus timed out at once: 732 s went by on a machine that ran for 175 s."""
    cell = every()[0]
    fine = Result(cell, [Step(name, 10.0) for name in STEPS], 100.0)
    first = Result(cell, [*fine.steps[:-1], Step("off", seconds, failure)], 100.0)
    came = iter([first, fine])
    made: list[Cell] = []

    def boot_it(one: Cell) -> Result:
        made.append(one)
        return next(came)

    monkeypatch.setattr(machine, "_steps_of", boot_it)
    assert machine.run_cell(cell) is (fine if boots == 2 else first)
    assert len(made) == boots
