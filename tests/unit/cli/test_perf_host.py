# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host lacks for perf kvm is said, each with what would help."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest

from tests.unit.proc_guests import FakeProc
from tuned_virt.cli import perf_host
from tuned_virt.cli.perf_command import PerfAction

OPTIONS = "perf version 6.2\n        libtraceevent: [ on  ]  # HAVE_LIBTRACEEVENT\n"
EVENTS = "/sys/kernel/tracing/events"


@pytest.fixture
def fs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeProc:
    """A host that has everything, with a guest under KVM."""
    made = FakeProc(tmp_path)
    made.put(f"{EVENTS}/kvm/kvm_exit/id", "1")
    made.put(f"{perf_host.COUNTERS}/cpu/type", "4")
    opened(made, "/dev/kvm", "anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(perf_host, "run_program", lambda *_, seconds: OPTIONS)
    return made


def opened(fs: FakeProc, *links: str) -> None:
    """What process 42 has open."""
    folder = Path(fs.root) / "proc/42/fd"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, link in enumerate(links):
        (folder / str(number)).symlink_to(link)


@pytest.mark.parametrize("action", PerfAction)
def test_nothing_is_missing(action: PerfAction, fs: FakeProc) -> None:
    assert perf_host.obstacles(fs, action, 42) == []
    assert list(perf_host.remarks(fs, action)) == []


@pytest.mark.parametrize(
    ("system", "named"),
    [
        ('ID="rhel"\nID_LIKE="fedora"\n', "perf"),
        ("ID=fedora\n", "perf"),
        ('NAME="openSUSE Leap"\nID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "perf"),
        ('PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\n', "linux-perf"),
        ("ID=ubuntu\nID_LIKE=debian\n", "linux-tools-6.8.0-31-generic"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "linux-tools-6.8.0-31-generic"),
        ("", "perf"),
    ],
)
def test_the_package_that_has_perf(
    system: str, named: str, fs: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(platform, "release", lambda: "6.8.0-31-generic")
    if system:
        fs.put("/usr/lib/os-release", system)
    told = f"perf is not installed: install the package {named}"
    assert perf_host.obstacles(fs, PerfAction.TOP, 42) == [told]


def test_a_perf_without_tracepoints(fs: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ubuntu's 6.2 (hotspot#519): "unsupported tracepoint" is all that it says itself."""
    without = OPTIONS.replace("on ", "OFF")
    monkeypatch.setattr(perf_host, "run_program", lambda *_, seconds: without)
    [told] = perf_host.obstacles(fs, PerfAction.STAT, 42)
    assert "without libtraceevent" in told
    assert perf_host.obstacles(fs, PerfAction.RECORD, 42) == [], "samples need none"


def test_a_kernel_without_kvm_events(fs: FakeProc) -> None:
    folder = Path(fs.root) / EVENTS.lstrip("/")
    shutil.rmtree(folder / "kvm")
    (folder / "sched").mkdir()
    told = "the kernel has no KVM events: KVM is not loaded: modprobe kvm"
    assert perf_host.obstacles(fs, PerfAction.STAT_RECORD, 42) == [told]
    fs.put("/dev/kvm", "")
    [told] = perf_host.obstacles(fs, PerfAction.STAT, 42)
    assert told.endswith("KVM is built without its tracepoints")
    assert perf_host.obstacles(fs, PerfAction.STAT_REPORT, None) == [], "it reads a file"
    shutil.rmtree(folder)
    [told] = perf_host.obstacles(fs, PerfAction.STAT, 42)
    assert told.startswith("tracefs is not mounted: mount ")
    fs.denied.add(EVENTS)
    [told] = perf_host.obstacles(fs, PerfAction.STAT, 42)
    assert told.startswith("the kernel's events cannot be read: ")


@pytest.mark.parametrize("action", PerfAction)
def test_a_guest_without_kvm(action: PerfAction, fs: FakeProc) -> None:
    opened(fs, "/dev/null", "anon_inode:[eventfd]")
    found = perf_host.obstacles(fs, action, 42 if action.samples else None)
    assert [told.partition(":")[0] for told in found] == (
        ["the guest runs in TCG, without KVM"] if action.samples else []
    )


def test_a_guest_of_which_nothing_is_shown_is_not_said_to_lack_kvm(fs: FakeProc) -> None:
    fs.denied.add("/proc/42/fd")
    assert perf_host.obstacles(fs, PerfAction.TOP, 42) == []


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("cpu", True),
        ("cpu_core", True),
        ("armv8_pmuv3_0", True),
        ("cpum_cf", True),
        ("software", False),
        ("cstate_core", False),
        ("uncore_imc_0", False),
    ],
)
def test_a_host_without_counters(name: str, counts: bool, fs: FakeProc) -> None:
    """In most virtual machines, and under WSL (WSL2-Linux-Kernel#110), "cycles" are not supported:
    perf falls back to a timer, and says nothing."""
    devices = Path(fs.root) / perf_host.COUNTERS.lstrip("/")
    (devices / "cpu").rename(devices / name)
    found = list(perf_host.remarks(fs, PerfAction.RECORD))
    assert [("(PMU)" in told) for told in found] == ([] if counts else [True])
    assert list(perf_host.remarks(fs, PerfAction.STAT)) == []
