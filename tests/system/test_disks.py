# SPDX-License-Identifier: GPL-2.0-or-later
"""Schedulers of real queues: loop devices of this kernel, under every TuneD generation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.loopdev import attached, loops, queue, remove, scheduler
from tests.sandbox import Sandbox, wait_for

SECTION = "[main]\nsummary=disks\n[blk_elevator_virt]\nrole=host\ndevices=loop4???\n"
TIMED = "2.25"
"""Where the generation makes no difference, one is enough."""


@pytest.fixture
def names() -> Iterator[list[str]]:
    with loops(4) as made:
        yield made


def state(names: list[str]) -> dict[str, str]:
    return {
        str(file): file.read_text()
        for name in names
        for file in sorted(queue(name).rglob("*"))
        if file.is_file() and (file.name in ("scheduler", "nr_requests") or "iosched" in str(file))
    }


@pytest.mark.parametrize(("word", "found"), [("cfq", "bfq"), ("deadline", "mq-deadline")])
def test_old_names_are_set_verified_and_put_back(
    tuned: Callable[..., Sandbox], version: str, names: list[str], word: str, found: str
) -> None:
    (queue(names[0]) / "scheduler").write_text("mq-deadline")
    (queue(names[0]) / "iosched/read_expire").write_text("333")
    (queue(names[1]) / "nr_requests").write_text("33")
    before = state(names)
    t = tuned(version, profiles={"mine": f"{SECTION}host_other={word}\n"})
    t.switch("mine")
    assert [scheduler(name) for name in names] == [found] * 4
    assert t.verify(), t.verify_lines
    assert f"verify: passed: 'blk_elevator_virt {names[0]}/scheduler' = '{found}'" in t.verify_lines
    t.kill9()
    t.start()
    t.off()
    assert state(names) == before


def test_noop(tuned: Callable[..., Sandbox], names: list[str]) -> None:
    (queue(names[0]) / "scheduler").write_text("kyber")
    t = tuned(TIMED, profiles={"mine": f"{SECTION}host_other=noop\n"})
    t.switch("mine")
    assert t.verify(), t.verify_lines
    assert scheduler(names[0]) == "none"
    t.off()
    assert scheduler(names[0]) == "kyber"


def test_one_bad_value_and_nothing_is_applied(
    tuned: Callable[..., Sandbox], version: str, names: list[str]
) -> None:
    before = state(names)
    t = tuned(version, profiles={"bad": f"{SECTION}host_other=bfq\nhost_nvme=fast\n"})
    t.switch("bad")
    assert state(names) == before
    assert not t.verify()
    assert "option 'host_nvme': 'fast' is not valid: one of keep, queues, none" in t.verify_lines


def test_several_sections(tuned: Callable[..., Sandbox], version: str, names: list[str]) -> None:
    first = f"{SECTION}host_other=bfq\npriority=10\n"
    second = f"[one]\ntype=blk_elevator_virt\nrole=host\ndevices={names[0]}\nhost_other=kyber\n"
    t = tuned(version, profiles={"two": f"{first}{second}priority=5\n"})
    t.switch("two")
    assert [scheduler(name) for name in names] == ["kyber", "bfq", "bfq", "bfq"]
    assert t.verify(), t.verify_lines


def test_tuneds_own_disk_plugin_keeps_its_disks(
    tuned: Callable[..., Sandbox], version: str, names: list[str]
) -> None:
    rival = f"[disk]\ndevices={names[0]}\nelevator=kyber\n"
    t = tuned(version, profiles={"both": f"{SECTION}host_other=bfq\n{rival}"})
    t.switch("both")
    assert [scheduler(name) for name in names] == ["kyber", "bfq", "bfq", "bfq"]
    assert t.verify(), t.verify_lines
    assert "left to TuneD's own disk plugin, which has elevator=kyber" in t.verify_lines


def test_a_device_that_is_gone(tuned: Callable[..., Sandbox], names: list[str]) -> None:
    t = tuned(TIMED, profiles={"mine": f"{SECTION}host_other=bfq\n"})
    t.switch("mine")
    remove(names[0])
    assert t.verify(), t.verify_lines
    t.off()
    assert [scheduler(name) for name in names[1:]] == ["none"] * 3


def test_a_loop_device_with_another_file_is_the_same(
    tuned: Callable[..., Sandbox], names: list[str]
) -> None:
    before = state(names)
    t = tuned(TIMED, profiles={"mine": f"{SECTION}host_other=bfq\n"})
    t.switch("mine")
    sequence = queue(names[0]).parent / "diskseq"
    number = sequence.read_text()
    with attached(names[0]):
        assert sequence.read_text() != number
        t.kill9()
        t.start()
        assert t.verify(), t.verify_lines
        t.off()
        assert state(names) == before


def test_a_thousand_devices(tuned: Callable[..., Sandbox]) -> None:
    with loops(1000) as many:
        before = {name: scheduler(name) for name in many}
        t = tuned(TIMED, profiles={"mine": f"{SECTION}host_other=mq-deadline\n"})
        t.switch("mine")
        wait_for("all set", lambda: all(scheduler(name) == "mq-deadline" for name in many), 60)
        wait_for("verified", t.verify, 60)
        passed = t.verify_lines.count("verify: passed: 'blk_elevator_virt loop4")
        assert passed == 1000
        t.off()
        wait_for("back", lambda: {name: scheduler(name) for name in many} == before, 60)
        baseline = t.root / "run/tuned-virt/baseline.json"
        wait_for("forgotten", lambda: not baseline.exists(), 20)
