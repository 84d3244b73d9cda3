# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices by their entries in sysfs, whatever they are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.blockdev import LOOP, FakeDisks
from tuned_virt.kernel.device_identity import DeviceFile, DeviceReader, located, parse, why_gone
from tuned_virt.kernel.files import KernelFileError

READ_AHEAD = "/sys/block/sda/queue/read_ahead_kb"
FILE = DeviceFile("/sys/block/sda", 17, "/queue/read_ahead_kb")

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.:!", min_size=1, max_size=9)


@pytest.fixture
def fs(tmp_path: Path) -> FakeDisks:
    return FakeDisks(tmp_path / "root")


@given(NAMES, st.integers(0, 2**64), NAMES)
def test_a_setting_is_read_as_it_was_written(name: str, entry: int, file: str) -> None:
    one = DeviceFile(f"/sys/block/{name}", entry, f"/queue/{file}")
    again = parse(str(one))
    assert again.path == one.path == f"/sys/block/{name}/queue/{file}"
    assert again.entry == entry
    assert str(again) == str(one)


def test_words() -> None:
    assert str(FILE) == "/sys/block/sda#17/queue/read_ahead_kb"
    assert FILE.path == READ_AHEAD
    assert FILE.name == "sda"
    assert parse("/proc/sys/vm/swappiness") == DeviceFile("", 0, "/proc/sys/vm/swappiness")


@given(st.dictionaries(NAMES, st.integers(1, 20)))
def test_a_file_is_found_where_its_device_is_and_nowhere_else(there: dict[str, int]) -> None:
    found = located(FILE, there)
    if found is None:
        assert FILE.entry not in there.values()
    else:
        assert there[found.name] == FILE.entry == found.entry
        assert found.file == FILE.file


def test_the_same_another_renamed_and_gone() -> None:
    assert located(FILE, {"sda": 17, "sdb": 18}) == FILE
    assert located(FILE, {"sda": 18}) is None
    assert located(FILE, {}) is None
    nic = DeviceFile("/sys/class/net/eth0", 17, "/mtu")
    moved = located(nic, {"eth0": 18, "lan": 17})
    assert moved is not None
    assert moved.path == "/sys/class/net/lan/mtu"
    by_name = DeviceFile("", 0, READ_AHEAD)
    assert located(by_name, {"sda": 18}) == by_name
    assert why_gone("sda", {"sda": 18}) == (
        "sda is another device now: it was removed and added since"
    )
    assert why_gone("sda", ()) == "sda no longer exists"


@pytest.mark.parametrize(
    ("path", "setting"),
    [
        (READ_AHEAD, "/sys/block/sda#1/queue/read_ahead_kb"),
        ("/sys/class/net/eth0/queues/rx-0/rps_cpus", "/sys/class/net/eth0#1/queues/rx-0/rps_cpus"),
        ("/sys/bus/pci/devices/0:1/power/control", "/sys/bus/pci/devices/0:1#1/power/control"),
        ("/proc/sys/net/ipv4/conf/eth0/rp_filter", "/proc/sys/net/ipv4/conf/eth0#1/rp_filter"),
        ("/proc/sys/net/ipv6/neigh/eth0/proxy_qlen", "/proc/sys/net/ipv6/neigh/eth0#1/proxy_qlen"),
        ("/proc/sys/net/ipv4/conf/all/rp_filter", "/proc/sys/net/ipv4/conf/all/rp_filter"),
        ("/sys/devices/x/card/power/control", "/sys/devices/x/card#1/power/control"),
        ("/sys/devices/system/cpu/cpu0/power/energy_perf_bias", ""),
        ("/sys/bus/cpu/devices/cpu0/power/energy_perf_bias", ""),
        ("/sys/kernel/mm/ksm/run", ""),
        ("/proc/sys/vm/swappiness", ""),
    ],
)  # fmt: skip
def test_whose_a_file_is(fs: FakeDisks, path: str, setting: str) -> None:
    for name in ("sda", "eth0", "0:1", "card", "cpu0"):
        fs.numbers[name] = 1
    for folder in ("block/sda", "class/net/eth0", "bus/pci/devices/0:1", "bus/cpu/devices/cpu0"):
        fs.file(f"/sys/{folder}/uevent", "")
    fs.file("/sys/devices/x/card/uevent", "")
    fs.file("/sys/devices/system/cpu/cpu0/uevent", "")
    assert str(DeviceReader(fs).identify(path)) == (setting or path)


def test_of_a_device_that_is_not_there_only_the_path_is_known(fs: FakeDisks) -> None:
    assert DeviceReader(fs).identify(READ_AHEAD) == DeviceFile("", 0, READ_AHEAD)


def test_each_folder_is_read_once(fs: FakeDisks, monkeypatch: pytest.MonkeyPatch) -> None:
    fs.add("sda", f"{LOOP}sda")
    read: list[str] = []
    entries = FakeDisks.entries

    def counted(own: FakeDisks, path: str) -> dict[str, int]:
        read.append(path)
        return entries(own, path)

    monkeypatch.setattr(FakeDisks, "entries", counted)
    devices = DeviceReader(fs)
    for file in ("read_ahead_kb", "nr_requests"):
        devices.identify(f"/sys/block/sda/queue/{file}")
    assert read == ["/sys/block"]


def test_what_cannot_be_read_is_neither_the_same_nor_another(
    fs: FakeDisks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_fs: FakeDisks, path: str) -> dict[str, int]:
        raise KernelFileError(path, "Input/output error")

    monkeypatch.setattr(FakeDisks, "entries", refuses)
    devices = DeviceReader(fs)
    with pytest.raises(KernelFileError, match="cannot read /sys/block: Input/output error"):
        devices.identify(READ_AHEAD)
    with pytest.raises(KernelFileError):
        devices.beside(FILE)
    assert devices.beside(DeviceFile("", 0, READ_AHEAD)) == {}


class Nodes(FakeDisks):
    """Device numbers by path of /dev."""

    def device_number(self, path: str) -> str:
        if path == "/dev/broken":
            raise KernelFileError(path, "Input/output error")
        return {"/dev/sda": "8:0", "/dev/disk/by-id/x": "8:0", "/dev/sda1": "8:1"}.get(path, "")


def test_the_disk_at_a_path(tmp_path: Path) -> None:
    fs = Nodes(tmp_path / "root")
    fs.add("sda", f"{LOOP}sda")
    fs.number("sda", "8:0")
    fs.partition("sda", "sda1", "8:1")
    fs.numbers["sda1"] = 99
    devices = DeviceReader(fs)
    assert devices.disk("/dev/sda") == devices.disk("/dev/disk/by-id/x") == fs.numbers["sda"]
    assert devices.disk("/dev/sda1") == 99
    assert devices.disk("/dev/null") == 0
    with pytest.raises(KernelFileError):
        devices.disk("/dev/broken")
