# SPDX-License-Identifier: GPL-2.0-or-later
"""Collectors over fake machines: cannot be read, not there, and zero are three things."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.proc_guests import FakeProc
from tuned_virt.audit.scene import Scene
from tuned_virt.cli import audit, audit_input, metrics_input
from tuned_virt.cli.audit_input import AuditInput
from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.daemon import NotPermitted, NotRunning
from tuned_virt.cli.metrics_input import CollectorReading
from tuned_virt.core import active_profile
from tuned_virt.kernel.files import KernelFileError
from tuned_virt.libvirt_api import binding
from tuned_virt.placement import Placement, PlacementKind
from tuned_virt.plugins.vm_pinning import held_placements
from tuned_virt.plugins.vm_pinning.held_placements import HeldPlacement

PAGES = "kernelpagesize_kB=4 N0=3072 N1=1024"


@pytest.fixture
def fs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeProc:
    """A host of two nodes with four CPUs each."""
    made = FakeProc(tmp_path)
    (tmp_path / "proc").mkdir()
    made.node(0, "0-3")
    made.node(1, "4-7")
    monkeypatch.setattr(FakeProc, "sees_all_processes", lambda _: True)
    return made


@pytest.fixture(autouse=True)
def held(monkeypatch: pytest.MonkeyPatch) -> list[HeldPlacement]:
    found: list[HeldPlacement] = []
    monkeypatch.setattr(held_placements, "everything", lambda: {"qemu:///system": found})
    monkeypatch.setattr(held_placements, "load", lambda uri: {})
    return found


def plain(reading: CollectorReading) -> dict[str, float]:
    return {
        " ".join([one.family.name.removeprefix("tuned_virt_"), *labels]): value
        for one in reading.samples
        for labels, value in one.values.items()
    }


def placed(pid: int, name: str, cpus: str) -> HeldPlacement:
    placement = Placement(
        *(name, f"uuid-{pid}", PlacementKind.SHARED, (0,), {0: cpus}, "0-7", {}, None, "fits")
    )
    return HeldPlacement(f"{name}/1", f"uuid-{pid}", name, name, pid, placement)


# --- guests ---------------------------------------------------------------------------------------


def test_guests(fs: FakeProc, held: list[HeldPlacement]) -> None:
    fs.guest(100, "web", {0: "0-3", 1: "0-3"}, PAGES)
    fs.guest(200, "db", {0: "0-7"}, PAGES)
    fs.waited(100, 101, 1_500_000_000)
    fs.waited(100, 102, 500_000_000)
    fs.put("/proc/100/ksm_stat", "ksm_rmap_items 10\nksm_merging_pages 256\n")
    held.append(placed(100, "web", "0-1"))
    reading = metrics_input.read_guests(fs)
    assert reading.errors == ()
    found = plain(reading)
    assert found["guests shared"] == found["guests unplaced"] == 1
    assert found["guest_placement_info web uuid-100 shared"] == 1
    assert found["guest_placement_node web 0"] == 1
    assert found["guest_vcpus web"] == 2
    assert found["guest_vcpu_delay_seconds_total web"] == 2.0
    assert found["guest_vcpu_delay_seconds_total db"] == 0
    assert found["guest_memory_bytes web 0"] == 12 << 20
    assert found["guest_local_memory_ratio web"] == 0.75
    assert found["guest_local_memory_ratio db"] == 1.0
    assert found["guest_drift web"] == 1
    assert found["guest_ungranted web"] == 0
    assert found["guest_ksm_merged_bytes web"] == 1 << 20
    assert not [name for name in found if name in ("guest_drift db", "guest_ksm_merged_bytes db")]


def test_no_guest_is_zero(fs: FakeProc) -> None:
    reading = metrics_input.read_guests(fs)
    assert set(plain(reading).values()) == {0}
    assert reading.errors == ()


def test_what_cannot_be_read_of_a_guest_is_an_error_each(fs: FakeProc) -> None:
    fs.guest(100, "shut", {0: "0-3"}, PAGES)
    fs.guest(200, "open", {0: "0-3"}, PAGES)
    fs.put("/proc/100/ksm_stat", "")
    fs.denied = {"/proc/100/numa_maps", "/proc/100/task/101/schedstat", "/proc/100/ksm_stat"}
    reading = metrics_input.read_guests(fs)
    assert sorted(reading.errors) == [
        f"guest shut: cannot read {path}: Permission denied" for path in sorted(fs.denied)
    ]
    found = plain(reading)
    assert found["guests unplaced"] == 2
    assert [name for name in found if "shut" in name] == [
        "guest_placement_info shut uuid-100 unplaced",
        "guest_vcpus shut",
    ]


def test_a_kernel_that_does_not_count_delay_is_no_error(fs: FakeProc) -> None:
    fs.guest(100, "web", {0: "0-3"}, PAGES)
    (Path(fs.root) / "proc/100/task/101/schedstat").unlink()
    reading = metrics_input.read_guests(fs)
    assert reading.errors == ()
    assert "guest_vcpu_delay_seconds_total web" not in plain(reading)


def test_an_unreadable_record_is_not_no_placement(
    fs: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_uri: str) -> None:
        raise KernelFileError("/run/tuned-virt/vm_pinning.json", "Permission denied")

    monkeypatch.setattr(held_placements, "load", load)
    fs.guest(100, "web", {0: "0-3"}, PAGES)
    reading = metrics_input.read_guests(fs)
    assert len(reading.errors) == 1
    found = plain(reading)
    assert found["guest_vcpus web"] == 1
    assert not [name for name in found if name.startswith(("guests", "guest_placement"))]


def test_hidden_processes_are_an_error(fs: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeProc, "sees_all_processes", lambda _: False)
    assert metrics_input.read_guests(fs).errors == (metrics_input.HIDDEN,)


def test_a_uuid_is_no_place_for_other_text(fs: FakeProc) -> None:
    fs.guest(100, "web", {0: "0-3"}, PAGES, uuid="\x1b[2J" + "x" * 500)
    [name] = [one for one in plain(metrics_input.read_guests(fs)) if "info web" in one]
    assert name == f"guest_placement_info web ?[2J{'x' * 32} unplaced"


# --- the host -------------------------------------------------------------------------------------


def test_a_kernel_without_ksm_and_huge_pages_has_no_series(fs: FakeProc) -> None:
    assert metrics_input.read_ksm(fs) == CollectorReading()
    assert metrics_input.read_pools(fs) == CollectorReading()


def test_ksm(fs: FakeProc) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    texts = {"run": "1", "pages_sharing": "30", "pages_shared": "10", "full_scans": "0"}
    for name, text in texts.items():
        fs.put(f"/sys/kernel/mm/ksm/{name}", text)
    assert plain(metrics_input.read_ksm(fs)) == {
        "ksm_run": 1,
        "ksm_saved_bytes": 30 * page,
        "ksm_shared_bytes": 10 * page,
        "ksm_full_scans_total": 0,
    }
    fs.put("/sys/kernel/mm/ksm/ksm_zero_pages", "5")
    fs.put("/sys/kernel/mm/ksm/general_profit", "-640")
    found = plain(metrics_input.read_ksm(fs))
    assert (found["ksm_saved_bytes"], found["ksm_profit_bytes"]) == (35 * page, -640)
    fs.denied = {"/sys/kernel/mm/ksm/pages_sharing"}
    with pytest.raises(KernelFileError):
        metrics_input.read_ksm(fs)


def test_pools(fs: FakeProc) -> None:
    top = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB"
    for name, text in {"nr": "8", "free": "3", "surplus": "1"}.items():
        fs.put(f"{top}/{name}_hugepages", text)
    whole = "/sys/kernel/mm/hugepages/hugepages-2048kB"
    fs.put(f"{whole}/nr_hugepages", "8")
    fs.put(f"{whole}/resv_hugepages", "2")
    assert plain(metrics_input.read_pools(fs)) == {
        "hugepages_pool_bytes 0 2M": 16 << 20,
        "hugepages_free_bytes 0 2M": 6 << 20,
        "hugepages_surplus_bytes 0 2M": 2 << 20,
        "hugepages_reserved_bytes 2M": 4 << 20,
    }


@pytest.mark.parametrize(
    ("missing", "running", "values", "errors"),
    [
        ("python3-libvirt is not installed", None, {}, ()),
        ("", None, {"libvirt_up": 0}, (metrics_input.SILENT,)),
        ("", 0, {"libvirt_up": 1, "libvirt_guests": 0}, ()),
    ],
)
def test_libvirt(
    fs: FakeProc,
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
    running: int | None,
    values: dict[str, float],
    errors: Sequence[str],
) -> None:
    monkeypatch.setattr(binding, "missing", lambda: missing)
    monkeypatch.setattr(metrics_input, "ask_once", lambda _: running)
    reading = metrics_input.read_libvirt(fs)
    assert (plain(reading), reading.errors) == (values, tuple(errors))


# --- the profile ----------------------------------------------------------------------------------


class FakeDaemon:
    """A TuneD that says what it is told to."""

    profile: str | Exception = "virtual-host-plus mine"
    log: Sequence[str] = ()
    error: Exception | None = None

    def __init__(self) -> None:
        if self.error:
            raise self.error

    def active_profile(self) -> str:
        if isinstance(self.profile, Exception):
            raise self.profile
        return self.profile

    def verify(self, ignore_missing: bool) -> tuple[bool, Sequence[str]]:
        assert not ignore_missing
        return not any("failed" in line for line in self.log), self.log


@pytest.fixture(autouse=True)
def daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[FakeDaemon]]:
    made = type("Told", (FakeDaemon,), {})
    monkeypatch.setattr(metrics_input, "Daemon", made)
    monkeypatch.setattr(active_profile, "NAMES", str(tmp_path / "active_profile"))
    yield made


class NoOriginals:
    """Two of which one is pending."""

    def all(self) -> dict[str, Any]:
        return {"ksm": type("Record", (), {"pending": {"run": "too little memory"}})()}


@pytest.fixture(autouse=True)
def originals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_input, "Originals", NoOriginals)


def test_the_profile(fs: FakeProc, tmp_path: Path) -> None:
    file = tmp_path / "active_profile"
    file.write_text("virtual-host-plus mine\n")
    os.utime(file, (1_000_000, 1_000_000))
    assert plain(metrics_input.read_profile(fs)) == {
        "tuned_up": 1,
        "profile_info virtual-host-plus": 1,
        "profile_info mine": 1,
        "profile_switch_timestamp_seconds": 1_000_000,
        "originals_pending": 1,
    }
    before = metrics_input.switch_version()
    os.utime(file, (1_000_001, 1_000_001))
    assert metrics_input.switch_version() != before


def test_without_tuned_it_is_down_and_that_is_no_error(
    fs: FakeProc, daemon: type[FakeDaemon]
) -> None:
    daemon.error = NotRunning("TuneD is not running")
    reading = metrics_input.read_profile(fs)
    assert (plain(reading), reading.errors) == ({"tuned_up": 0, "originals_pending": 1}, ())
    assert metrics_input.read_verify(fs) == CollectorReading(soon=True)
    daemon.error, daemon.profile = None, ""
    assert metrics_input.read_verify(fs) == CollectorReading(soon=True)


def test_a_tuned_that_does_not_answer_is_up_and_an_error(
    fs: FakeProc, daemon: type[FakeDaemon]
) -> None:
    daemon.profile = CouldNot("TuneD's active_profile: no reply")
    reading = metrics_input.read_profile(fs)
    assert plain(reading)["tuned_up"] == 1
    assert reading.errors == ("TuneD's active_profile: no reply",)


def test_a_verification(
    fs: FakeProc, daemon: type[FakeDaemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.log = [
        "INFO     tuned.plugins.base: verify: passed: 'run' = '1'",
        "ERROR    tuned.plugins.base: verify: failed: 'swappiness' = '60', expected '10'",
        "INFO     tuned.plugins.base: verify: note: KSM is controlled by others",
    ]
    reading = metrics_input.read_verify(fs)
    found = plain(reading)
    assert (found["verify_success"], found["settings_differing"], reading.soon) == (0, 1, True)
    assert (found["verify_lines passed"], found["verify_lines missing"]) == (1, 0)
    daemon.log = daemon.log[:1]
    reading = metrics_input.read_verify(fs)
    assert (plain(reading)["verify_success"], reading.soon) == (1, False)
    daemon.profile = NotPermitted("only root")
    with pytest.raises(NotPermitted):
        metrics_input.read_verify(fs)


# --- the audit ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "errors"),
    [("", ("web: cannot be read", "host: no nodes")), ("no socket", ("host: no nodes",))],
)
def test_an_audit_counts_by_severity_what_is_not_accepted(
    fs: FakeProc, monkeypatch: pytest.MonkeyPatch, missing: str, errors: Sequence[str]
) -> None:
    """Guests that run without libvirt have no XML, which is no error: nothing can mend it."""
    unreadable = (("web", "cannot be read"), ("host", "no nodes"))
    gathered = AuditInput(Scene(None), unreadable=unreadable)
    monkeypatch.setattr(binding, "missing", lambda: missing)
    content = {
        "counts": {"error": 0, "warning": 2, "info": 0},
        "findings": [{"suppressed": None}, {"suppressed": None}, {"suppressed": {"where": "x"}}],
        "not_checked": [1, 2, 3],
    }
    monkeypatch.setattr(audit_input, "without_agents", lambda _: gathered)
    monkeypatch.setattr(audit, "content", lambda _: content)
    reading = metrics_input.read_audit(fs)
    assert reading.errors == errors
    assert plain(reading) == {
        "audit_findings error": 0,
        "audit_findings warning": 2,
        "audit_findings info": 0,
        "audit_suppressed_findings": 1,
        "audit_unchecked": 3,
    }


def test_a_host_whose_libvirt_hangs_is_not_taken_for_one_without_guests(
    fs: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = AuditInput(Scene(None, without_guests="libvirt is unavailable (it does not answer)"))
    monkeypatch.setattr(audit_input, "without_agents", lambda _: hung)
    monkeypatch.setattr(binding, "missing", lambda: "")
    with pytest.raises(CouldNot, match="it does not answer"):
        metrics_input.read_audit(fs)
