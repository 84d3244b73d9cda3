# SPDX-License-Identifier: GPL-2.0-or-later
"""Originals of guests: one a run, and never another run's."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tuned_virt.core.originals import Originals, OriginalsError
from tuned_virt.guests import originals
from tuned_virt.guests.originals import GuestOriginals
from tuned_virt.kernel.procfs import start_time
from tuned_virt.model.pins import Pins
from tuned_virt.plugins.vm_pinning import original
from tuned_virt.plugins.vm_pinning.original import PLUGIN, OriginalPins

URI = "qemu:///system"
UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"


def one(number: int = 1, start: int = 77, uri: str = URI, pid: int = 0) -> OriginalPins:
    return OriginalPins(uri, UUID, "web1", number, pid, start, Pins({0: "0-7"}, "0-7"))


@pytest.fixture
def baseline(tmp_path: Path) -> Originals:
    return Originals(tmp_path, "this boot")


def kept(baseline: Originals, uri: str | None = URI) -> GuestOriginals[OriginalPins]:
    return GuestOriginals(PLUGIN, original.parse, baseline, uri)


def test_a_run_is_known_by_when_its_process_started() -> None:
    assert originals.key(UUID, 3, 77) == f"{UUID}/77"
    assert one(3).key == one(4).key == f"{UUID}/77"


def test_or_by_libvirts_number_where_its_process_is_not_to_be_seen() -> None:
    assert originals.key(UUID, 3, 0) == f"{UUID}/#3"
    assert one(3, 0).key != one(4, 0).key


def test_two_runs_without_a_process_have_two_originals(baseline: Originals) -> None:
    first, second = one(3, 0), one(4, 0)
    mine = kept(baseline)
    assert mine.keep({first.key: first})
    assert mine.keep({second.key: second})
    assert kept(baseline).guests == {f"{UUID}/#3": first, f"{UUID}/#4": second}


def test_whether_it_still_runs() -> None:
    pid, start = os.getpid(), start_time(os.getpid())
    assert start is not None
    here, reused, unseen = one(1, start, pid=pid), one(1, start - 1, pid=pid), one(1, 0)
    assert (originals.runs(here), originals.may_run(here)) == (True, True)
    assert (originals.runs(reused), originals.may_run(reused)) == (False, False)
    assert (originals.runs(unseen), originals.may_run(unseen)) == (False, True)


def test_the_first_original_of_a_run_stays(baseline: Originals) -> None:
    found = one()
    kept(baseline).keep({found.key: found})
    later = OriginalPins(URI, UUID, "web1", 1, 0, 77, Pins({0: "4"}, "4"))
    kept(baseline).keep({found.key: later})
    assert kept(baseline).guests == {found.key: found}
    assert kept(baseline).amend({found.key: later})
    assert kept(baseline).guests == {found.key: later}


def test_only_one_libvirts_guests_are_at_hand(baseline: Originals) -> None:
    mine, other = one(), one(2, 78, uri="qemu:///session")
    everything = kept(baseline, None)
    everything.keep({mine.key: mine, other.key: other})
    assert kept(baseline).guests.keys() == {mine.key}
    assert kept(baseline, None).guests.keys() == {mine.key, other.key}
    assert everything.uris() == {URI, "qemu:///session"}


def test_what_is_no_guest_or_not_read_is_left_out(
    baseline: Originals, caplog: pytest.LogCaptureFixture
) -> None:
    found = one()
    baseline.keep(PLUGIN, {"a kernel setting": "1", "uuid/5": "{", found.key: found.text()})
    assert kept(baseline).guests == {found.key: found}
    assert [record.message.partition(" cannot be read: ")[0] for record in caplog.records] == [
        "vm_pinning: uuid/5"
    ]


def test_what_is_let_go_is_kept_no_longer(baseline: Originals) -> None:
    first, second = one(), one(2, 78)
    mine = kept(baseline)
    mine.keep({first.key: first, second.key: second})
    mine.let_go([first.key, "never kept"])
    assert mine.guests.keys() == kept(baseline).guests.keys() == {second.key}


def test_what_waits_is_said_of_each_guest(baseline: Originals) -> None:
    first, second = one(), one(2, 78)
    mine = kept(baseline)
    mine.keep({first.key: first, second.key: second})
    mine.set_pending({first.key: "libvirt hangs", "gone": "x"})
    assert baseline.record(PLUGIN).pending == {first.key: "guest web1: libvirt hangs"}
    mine.set_all_pending("libvirt is gone")
    assert set(baseline.record(PLUGIN).pending.values()) == {"guest web1: libvirt is gone"}
    assert baseline.record(PLUGIN).pending.keys() == {first.key, second.key}


def test_a_guest_that_another_process_has_put_back_waits_for_nothing(baseline: Originals) -> None:
    first, second = one(), one(2, 78)
    mine = kept(baseline)
    mine.keep({first.key: first, second.key: second})
    assert mine.guests
    baseline.forget(PLUGIN, {first.key})
    mine.set_all_pending("libvirt hangs")
    assert baseline.record(PLUGIN).pending.keys() == {second.key}


def test_a_full_run_is_said_and_nothing_counts_as_kept(
    baseline: Originals, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OriginalsError("no space left")

    found, mine = one(), kept(baseline)
    for name in ("keep", "amend", "forget", "set_pending"):
        monkeypatch.setattr(baseline, name, full)
    assert not mine.keep({found.key: found})
    assert not mine.amend({found.key: found})
    assert mine.guests == {}
    mine.set_all_pending("x")
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == [
        "vm_pinning: nothing is changed: no space left",
        "vm_pinning: nothing is changed: no space left",
        "vm_pinning: no space left",
    ]


def test_what_cannot_be_forgotten_is_later_and_is_nobodys_original_meanwhile(
    baseline: Originals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OriginalsError("no space left")

    found, mine = one(), kept(baseline)
    mine.keep({found.key: found})
    with monkeypatch.context() as patch:
        patch.setattr(baseline, "forget", full)
        mine.let_go([found.key])
        assert not mine.guests
        assert not mine.settled
        changed = OriginalPins(URI, UUID, "web1", 1, 0, 77, Pins({0: "4"}, "4"))
        assert not mine.keep({found.key: changed}), "the stale original would count"
    assert mine.keep({found.key: changed})
    assert kept(baseline).guests == {found.key: changed}
    mine.let_go([found.key])
    assert mine.settled
    assert baseline.all() == {}


def test_what_an_earlier_process_has_kept_is_taken(baseline: Originals) -> None:
    found = one()
    kept(baseline).keep({found.key: found})
    baseline.release(PLUGIN)
    assert baseline.holder(PLUGIN) is None
    kept(baseline).take()
    assert baseline.holder(PLUGIN) == os.getpid()
