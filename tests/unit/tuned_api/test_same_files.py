# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD's own sections that set the same kernel files as ours."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tuned_virt.core.installed_profiles import LoadedProfile
from tuned_virt.core.next_profile import takes_over
from tuned_virt.plugins import blk_elevator_virt, hugepages_numa, ksm
from tuned_virt.plugins.blk_elevator_virt import DisksTuner
from tuned_virt.plugins.hugepages_numa import HugepagesTuner
from tuned_virt.plugins.ksm import KsmTuner
from tuned_virt.plugins.virt_system import SystemTuner
from tuned_virt.plugins.vm_pinning.plugin import PinningTuner
from tuned_virt.tuned_api.same_files import StockFile, exclusive, files, remarks

RUN = "/sys/kernel/mm/ksm/run"
THP = "/sys/kernel/mm/transparent_hugepage/enabled"


def instance(name: str, **options: str) -> Any:
    variables = SimpleNamespace(expand=lambda text: text)
    return SimpleNamespace(
        name=name, options=options, plugin=SimpleNamespace(name=name, _variables=variables)
    )


def test_what_tuneds_own_plugins_set(tmp_path: Path) -> None:
    for number in (0, 1):
        (tmp_path / f"queue{number}").touch()
    found = files(
        [
            instance("sysfs", **{f"{tmp_path}/queue*": "5", "/sys/none/such": "1"}),
            instance("sysctl", **{"vm.swappiness": ">10", "vm.dirty_ratio": ""}),
            instance("vm", transparent_hugepages="never", dirty_bytes="5%"),
            instance("cpu", governor="performance"),
        ]
    )
    assert {(one.section, one.path, one.value) for one in found} == {
        ("sysfs", f"{tmp_path}/queue0", "5"),
        ("sysfs", f"{tmp_path}/queue1", "5"),
        ("sysctl", "/proc/sys/vm/swappiness", "10"),
        ("vm", THP, "never"),
        ("vm", "/proc/sys/vm/dirty_bytes", "5%"),
    }


def test_a_recipe_for_real_time_guests_that_cannot_hold() -> None:
    """Stock realtime-virtual-host unmerges all, and [ksm] mode=off below it stops merging."""
    stock = [
        StockFile("sysfs", RUN, RUN, "2"),
        StockFile("vm", "transparent_hugepages", THP, "never"),
    ]
    tuner = KsmTuner()
    [said] = remarks(tuner.files(ksm.parse({"mode": "off"}), {}), "ksm", stock)
    assert said == (
        f"[sysfs] sets {RUN} to '2', and [ksm] sets it to '0': only one can hold; leave it out of"
        f" [ksm], or put drop={RUN} into [sysfs] of your profile"
    )
    assert not [*remarks(tuner.files(ksm.parse({"mode": "unmerge"}), {}), "ksm", stock)]
    [said] = remarks(tuner.files(ksm.parse({"mode": "auto"}), {}), "ksm", stock)
    assert "and [ksm] sets it itself: only one" in said
    pages = HugepagesTuner().files(hugepages_numa.parse({"transparent_hugepages": "madvise"}), {})
    assert len([*remarks(pages, "hugepages_numa", stock)]) == 1
    system = SystemTuner()
    online = system.files(system.parse({"memory_auto_online": "online"}), {})
    assert online == {"/sys/devices/system/memory/auto_online_blocks": "online"}
    assert system.files(system.parse({"memory_auto_online": "auto"}), {}) == {}


def test_schedulers_by_any_path_of_sysfs() -> None:
    planned = {"sdz#12/scheduler": "mq-deadline"}
    ours = DisksTuner().files(blk_elevator_virt.parse({}), planned)
    path = "/sys/block/sdz/queue/scheduler"
    [said] = remarks(ours, "blk_elevator_virt", [StockFile("sysfs", path, path, "none")])
    assert said.startswith(
        f"[sysfs] sets {path} to 'none', and [blk_elevator_virt] sets it to 'mq-deadline':"
    )
    for option, same in (
        (path, True),
        ("/sys/block/sd*/queue/scheduler", True),
        ("/sys/class/block/sdz/queue/scheduler", True),
        ("/sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/block/sdz/queue/scheduler", True),
        ("/sys/block/sdy/queue/scheduler", False),
        ("/sys/class/block/sdz/queue/nr_requests", False),
    ):
        plugins = frozenset({"blk_elevator_virt", "sysfs"})
        chain = [LoadedProfile("next", plugins, options={"sysfs": {option: "none"}})]
        assert takes_over(chain, "blk_elevator_virt", ours, ("", "")) is not same, option


def test_a_disks_queue_by_the_settings_that_are_kept_of_it() -> None:
    """While a plan is being applied there is no other word of what is set already."""
    kept = {
        "sdz#12/scheduler": "none",
        "sdz#12/nr_requests": "64",
        "sdz#12/iosched/slice_idle": "0",
    }
    queue = "/sys/block/sdz/queue"
    assert DisksTuner().files(blk_elevator_virt.parse({}), kept) == {
        f"{queue}/scheduler": "none",
        f"{queue}/nr_requests": "64",
        f"{queue}/iosched/slice_idle": "0",
    }


def test_numa_balancing_as_sections_ask_for_it() -> None:
    policies = [PinningTuner.parse({}), PinningTuner.parse({"numa_balancing": "0"})]
    ours = PinningTuner().files(policies)
    stock = [
        StockFile("sysctl", "kernel.numa_balancing", "/proc/sys/kernel/numa_balancing", value)
        for value in ("1", "0")
    ]
    [said] = remarks(ours, "vm_pinning", stock)
    assert said.startswith("[sysctl] sets /proc/sys/kernel/numa_balancing to '1', and [vm_pinning]")
    assert PinningTuner().files(policies[:1]) == {}


def test_write_back_in_percent_and_in_bytes_exclude_each_other() -> None:
    """A child's [vm] dirty_background_bytes was neither set nor named."""
    vm = "/proc/sys/vm"
    ours = StockFile("sysctl", "vm.dirty_background_ratio", f"{vm}/dirty_background_ratio", "5")
    child = StockFile("vm", "dirty_background_bytes", f"{vm}/dirty_background_bytes", "67108864")
    other = StockFile("vm", "dirty_ratio", f"{vm}/dirty_ratio", "40")
    assert [*exclusive([ours, child, other])] == [
        "[sysctl] vm.dirty_background_ratio=5 and [vm] dirty_background_bytes=67108864 exclude each"
        " other: the kernel keeps what is written last; set dirty_background_bytes in the settings"
        " file instead, or put drop=vm.dirty_background_ratio into [sysctl] of your profile"
    ]
    assert not [*exclusive([ours, ours, other])]
    none = StockFile("sysctl", "vm.dirty_bytes", f"{vm}/dirty_bytes", "0")
    assert not [*exclusive([none, other])]
