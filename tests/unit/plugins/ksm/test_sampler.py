# SPDX-License-Identifier: GPL-2.0-or-later
"""Samples from a folder laid out as the kernel's files, and the guests in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.model.guest.test_qemu_process import KIB, process
from tuned_virt.core.guest_source import FixedGuests
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api.running_guests import RunningGuest
from tuned_virt.plugins.ksm import auto
from tuned_virt.plugins.ksm.auto import AutoPolicy
from tuned_virt.plugins.ksm.decision import ControllerMemory, Phase
from tuned_virt.plugins.ksm.sampler import Sampler, cpu_seconds, ksmd

COUNTERS = {
    "run": "1",
    "pages_to_scan": "100",
    "sleep_millisecs": "20",
    "full_scans": "4",
    "pages_shared": "10",
    "pages_sharing": "20",
    "pages_unshared": "30",
    "pages_volatile": "40",
    "ksm_zero_pages": "5",
    "pages_scanned": "12345",
}


class Libvirt(FixedGuests[RunningGuest]):
    """Says what a test tells it."""

    def __init__(self, **memory: int) -> None:
        self.guests = {
            uuid: RunningGuest(uuid, f"name of {uuid}", kib, True) for uuid, kib in memory.items()
        }


def machine(root: Path) -> KernelFS:
    folder = root / "sys/kernel/mm/ksm"
    folder.mkdir(parents=True)
    for name, value in COUNTERS.items():
        (folder / name).write_text(value + "\n")
    (root / "proc/pressure").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        "MemTotal: 64000000 kB\nMemFree: 100 kB\nMemAvailable: 40000000 kB\nBuffers: 20 kB\n"
        "Cached: 30 kB\n"
    )
    (root / "proc/pressure/memory").write_text("some avg10=2.34 avg60=0 avg300=0 total=1\n")
    process(root, 37, "ksmd", cmdline="")
    (root / "proc/37/schedstat").write_text("1500000000 17 2\n")
    return KernelFS(root)


def test_a_sample(tmp_path: Path) -> None:
    fs = machine(tmp_path)
    process(tmp_path, 7, "qemu-kvm", "/usr/libexec/qemu-kvm", "q -name web")
    sample = Sampler(fs, FixedGuests()).sample(5.0)
    assert (sample.total, sample.free, sample.available) == (64_000_000, 150, 40_000_000)
    assert (sample.merged, sample.known, sample.full_scans) == (25, 100, 4)
    assert (sample.scanned, sample.cpu, sample.pressure) == (12345, 1.5, 2.34)
    assert sample.guests == {"web (process 7)"}
    assert sample.committed == sample.resident == 100 * KIB


def test_older_kernels_and_containers(tmp_path: Path) -> None:
    fs = machine(tmp_path)
    for gone in ("sys/kernel/mm/ksm/pages_scanned", "proc/pressure/memory", "proc/37/comm"):
        (tmp_path / gone).unlink()
    sample = Sampler(fs, FixedGuests()).sample(5.0)
    assert (sample.scanned, sample.cpu, sample.pressure) == (None, None, None)


def test_guests_count_with_what_libvirt_lets_them_use(tmp_path: Path) -> None:
    fs = machine(tmp_path)
    process(tmp_path, 7, "qemu-kvm", "/usr/libexec/qemu-kvm", "q -name web -uuid aa", pages=10)
    process(tmp_path, 8, "qemu-kvm", "/usr/libexec/qemu-kvm", "q -name by-hand", pages=20)
    libvirt = Libvirt(aa=4000, hidden=500)
    sampler = Sampler(fs, libvirt)
    sample = sampler.sample(0.0)
    assert sample.committed == 4000 + 500 + 20 * KIB
    assert sample.resident == 500 + 30 * KIB
    everyone = {"web (process 7)", "by-hand (process 8)", "name of hidden (hidden)"}
    assert sample.guests == everyone
    libvirt.guests = None
    sample = sampler.sample(1.0, changed=True)
    assert sample.guests == everyone, "libvirt's absence is no guest's end"


HOST = """MemTotal: {} kB
MemFree: 1000 kB
MemAvailable: {} kB
Buffers: 0 kB
Cached: 0 kB
"""
GIB = 1 << 20
ARC = """13 1 0x01 123 33456 6789 9876
name                            type data
c_min                           4    {}
size                            4    {}
"""


def idle_for_ten_minutes(fs: KernelFS, libvirt: FixedGuests[RunningGuest]) -> bool:
    """Whether auto, from a new start, never lets ksmd run."""
    sampler, memory = Sampler(fs, libvirt), ControllerMemory()
    for now in range(0, 601, 10):
        decision = auto.decide(AutoPolicy(), sampler.sample(float(now)), memory)
        memory = decision.memory
        if memory.phase is not Phase.IDLE or decision.changes.get("run", "0") != "0":
            return False
    return True


@pytest.mark.parametrize("told", ["meminfo", "sysfs"])
def test_memory_in_pools_is_not_short(tmp_path: Path, told: str) -> None:
    """256 GiB, of which 200 are in pools and 45 available: for ever in maintenance, before."""
    fs = machine(tmp_path)
    (tmp_path / "sys/kernel/mm/ksm/run").write_text("0\n")
    process(tmp_path, 7, "qemu-kvm", "/usr/libexec/qemu-kvm", "q -name a -uuid aa", pages=10)
    text = HOST.format(256 * GIB, 45 * GIB)
    if told == "meminfo":
        text += f"Hugetlb: {200 * GIB} kB\n"
    for size, count in ((GIB, 100), (2048, 51200)) if told == "sysfs" else ():
        folder = tmp_path / f"sys/kernel/mm/hugepages/hugepages-{size}kB"
        folder.mkdir(parents=True)
        (folder / "nr_hugepages").write_text(f"{count}\n")
    (tmp_path / "proc/meminfo").write_text(text)
    guests = {
        "aa": RunningGuest("aa", "a", 4 * GIB, True),
        "huge": RunningGuest("huge", "huge", 196 * GIB, True, huge=True),
    }
    assert idle_for_ten_minutes(fs, FixedGuests(guests))
    assert Sampler(fs, FixedGuests(guests)).sample(0.0).guests == {"a (process 7)"}
    more = {**guests, "b": RunningGuest("b", "b", 50 * GIB, True)}
    assert not idle_for_ten_minutes(fs, FixedGuests(more)), "those that can be merged count"
    shared = {**guests, "b": RunningGuest("b", "b", 30 * GIB, True, apart=True)}
    assert idle_for_ten_minutes(fs, FixedGuests(shared))


def test_what_zfs_gives_back_is_there(tmp_path: Path) -> None:
    fs = machine(tmp_path)
    (tmp_path / "sys/kernel/mm/ksm/run").write_text("0\n")
    process(tmp_path, 7, "qemu-kvm", "/usr/libexec/qemu-kvm", "q -name a", pages=10)
    (tmp_path / "proc/meminfo").write_text(HOST.format(64 * GIB, 8 * GIB))
    assert not idle_for_ten_minutes(fs, FixedGuests())
    (tmp_path / "proc/spl/kstat/zfs").mkdir(parents=True)
    arcstats = tmp_path / "proc/spl/kstat/zfs/arcstats"
    arcstats.write_text(ARC.format(2 << 30, 34 << 30))
    assert Sampler(fs, FixedGuests()).sample(0.0).reclaimable == 32 * GIB
    assert idle_for_ten_minutes(fs, FixedGuests())
    arcstats.write_text(ARC.format(2 << 30, 1 << 30))
    assert Sampler(fs, FixedGuests()).sample(0.0).reclaimable == 0


def test_guests_are_counted_now_and_then_or_when_they_change(tmp_path: Path) -> None:
    fs = machine(tmp_path)
    sampler = Sampler(fs, FixedGuests())
    assert not sampler.sample(0.0).guests
    process(tmp_path, 7, "qemu-kvm", "/usr/libexec/qemu-kvm")
    assert not sampler.sample(9.0).guests
    assert sampler.sample(9.5, changed=True).guests
    process(tmp_path, 8, "qemu-kvm", "/usr/libexec/qemu-kvm")
    assert len(sampler.sample(19.6).guests) == 2


def test_ksmd_is_the_kernels_thread_and_no_namesake(tmp_path: Path) -> None:
    process(tmp_path, 5, "ksmd", "/home/me/ksmd")
    assert ksmd(KernelFS(tmp_path)) == ""
    process(tmp_path, 37, "ksmd", cmdline="")
    assert ksmd(KernelFS(tmp_path)) == "/proc/37"


def test_cpu_time_in_ticks_where_there_is_no_schedstat(tmp_path: Path) -> None:
    process(tmp_path, 37, "ksmd", cmdline="")
    fs = KernelFS(tmp_path)
    assert cpu_seconds(fs, "/proc/37") is None
    numbers = " ".join(["0"] * 10 + ["150", "50"] + ["0"] * 30)
    (tmp_path / "proc/37/stat").write_text(f"37 (k) smd) S {numbers}")
    assert cpu_seconds(fs, "/proc/37") == 2.0
