# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt restore` of guests' limits and of numa_balancing, over a fake binding."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.guests.recording import until
from tests.unit.libvirt_api.fake_binding import FREE, URI, FakeDomain, FakeLibvirt, install
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.guests.restore import LibvirtQuestions
from tuned_virt.kernel import timeouts
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins.vm_limits.original import OriginalLimits
from tuned_virt.plugins.vm_limits.plugin import LimitsTuner
from tuned_virt.plugins.vm_pinning import numa_balancing
from tuned_virt.plugins.vm_pinning.original import OriginalPins
from tuned_virt.plugins.vm_pinning.plugin import PinningTuner

GIB = 1 << 20


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLibvirt]:
    monkeypatch.setattr(timeouts, "ONE_SHOT", 0.2)
    made = install(monkeypatch)
    yield made
    made.hang = lambda: None
    until(lambda: made.open_connections == 0)


@pytest.fixture
def originals(tmp_path: Path) -> Originals:
    return Originals(tmp_path / "run", "boot")


def limited(number: int, **refused: set[str]) -> FakeDomain:
    domain = FakeDomain(number)
    domain.limits["hard_limit"] = GIB
    domain.refuses = refused.get("refuses", set())
    return domain


def keep(originals: Originals, *numbers: int) -> None:
    found = {"hard_limit": FREE["hard_limit"]}
    for number in numbers:
        one = OriginalLimits(URI, f"uuid{number}", f"guest{number}", number, 0, 0, found)
        originals.keep("vm_limits", {one.key: one.text()})


def restore(originals: Originals, tmp_path: Path) -> None:
    fs, journal = KernelFS(tmp_path / "root"), Journal(tmp_path / "journal")
    with LibvirtQuestions() as libvirt:
        LimitsTuner().restore(fs, originals, journal, libvirt)


def test_every_guest_is_restored(fake: FakeLibvirt, originals: Originals, tmp_path: Path) -> None:
    fake.domains = [limited(1), limited(2)]
    keep(originals, 1, 2)
    restore(originals, tmp_path)
    assert [domain.limits for domain in fake.domains] == [FREE, FREE]
    assert originals.all() == {}


def test_a_guest_that_runs_no_more_or_anew_has_nothing_to_restore(
    fake: FakeLibvirt, originals: Originals, tmp_path: Path
) -> None:
    fake.domains = [limited(3)]
    fake.domains[0].uuid = "uuid1"
    keep(originals, 1, 2)
    restore(originals, tmp_path)
    assert fake.domains[0].written == []
    assert originals.all() == {}


def test_one_that_is_refused_or_damaged_keeps_no_other_from_its_way_back(
    fake: FakeLibvirt, originals: Originals, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake.domains = [limited(1, refuses={"hard_limit"}), limited(2), limited(3)]
    keep(originals, 1)
    originals.keep("vm_limits", {"uuid2/#2": "{damaged", "uuid4/#4": "[]"})
    keep(originals, 3)
    restore(originals, tmp_path)
    assert fake.domains[2].limits == FREE
    left = originals.record("vm_limits")
    assert set(left.originals) == {"uuid1/#1", "uuid2/#2", "uuid4/#4"}
    assert list(left.pending) == ["uuid1/#1"]
    assert "vm_limits: uuid2/#2 cannot be read" in caplog.text
    assert "vm_limits: guest guest1 is not restored yet: hard_limit" in caplog.text


def test_a_libvirt_that_hangs_is_waited_for_once(
    fake: FakeLibvirt, originals: Originals, tmp_path: Path
) -> None:
    hung = hangs(fake)
    keep(originals, 1, 2, 3, 4, 5)
    began = time.monotonic()
    restore(originals, tmp_path)
    assert time.monotonic() - began < 4 * 0.2
    assert set(originals.record("vm_limits").pending.values()) == {
        f"guest guest{number}: libvirtd does not answer" for number in range(1, 6)
    }
    hung.append("go on")


def hangs(fake: FakeLibvirt) -> list[str]:
    """libvirt hangs until something is in the list."""
    gone_on: list[str] = []

    def hang() -> None:
        while not gone_on:
            time.sleep(0.01)

    fake.hang = hang
    return gone_on


def test_a_kernel_setting_does_not_wait_for_libvirt(
    fake: FakeLibvirt, originals: Originals, tmp_path: Path
) -> None:
    fake.refuses = "no socket"
    file = tmp_path / "root" / numa_balancing.FILE.lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_text("0")
    one = OriginalPins(URI, "uuid1", "guest1", 1, 0, 0)
    originals.keep("vm_pinning", {numa_balancing.SETTING: "1", one.key: one.text()})
    tuner = PinningTuner(tmp_path / "held.json")
    fs, journal = KernelFS(tmp_path / "root"), Journal(tmp_path / "journal")
    with LibvirtQuestions() as libvirt:
        tuner.restore(fs, originals, journal, libvirt)
    assert file.read_text().strip() == "1"
    left = originals.record("vm_pinning")
    assert set(left.originals) == {one.key}
    assert left.pending == {one.key: "guest guest1: no socket"}


def test_a_libvirt_that_has_come_back_is_asked_again(
    fake: FakeLibvirt, originals: Originals, tmp_path: Path
) -> None:
    fake.refuses = "no socket"
    fake.domains = [limited(1)]
    keep(originals, 1)
    restore(originals, tmp_path)
    assert list(originals.record("vm_limits").pending.values()) == ["guest guest1: no socket"]
    fake.refuses = ""
    restore(originals, tmp_path)
    assert (fake.domains[0].limits, originals.all()) == (FREE, {})
