# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.blockdev import LOOP, FakeDisks
from tuned_virt.core.engine import Engine
from tuned_virt.core.journal import Journal
from tuned_virt.core.options import BadOptions
from tuned_virt.core.originals import Originals
from tuned_virt.kernel.device_identity import DeviceFile
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.plugins.crash_guard import (
    CrashGuardPolicy,
    CrashGuardState,
    CrashGuardTuner,
    decide,
    parse,
    paths,
)


@pytest.mark.parametrize(
    "path", ["/etc/shadow", "/sys/../etc/passwd", "sys/x", "/proc/sysrq-trigger"]
)
def test_only_settings_of_the_kernel(path: str) -> None:
    with pytest.raises(BadOptions, match="stock, or a path under /proc/sys or /sys"):
        parse({"files": path})


def test_patterns_are_separated_by_commas_and_white_space() -> None:
    assert parse({"files": "/sys/a*, /sys/b\n /sys/c"}).patterns == ("/sys/a*", "/sys/b", "/sys/c")


def state(files: dict[str, str], *kept: str) -> CrashGuardState:
    """Files of no device, all of them guarded."""
    values = {DeviceFile("", 0, path): text for path, text in files.items()}
    places = {path: DeviceFile("", 0, path) for path in kept}
    return CrashGuardState(values, frozenset(values), {}, places)


def test_what_a_crash_left_is_put_back_and_kept_on() -> None:
    there = {"/proc/sys/vm/swappiness": "10", "/proc/sys/vm/new": "3"}
    kept = {"/proc/sys/vm/swappiness": "60"}
    plan = decide(state(there, *kept), kept)
    assert [(c.path, c.before, c.after) for c in plan.changes] == [
        ("/proc/sys/vm/swappiness", "10", "60")
    ]
    assert plan.originals == {"/proc/sys/vm/swappiness": "60", "/proc/sys/vm/new": "3"}


def test_what_another_plugin_has_set_was_not_there_before() -> None:
    values = {DeviceFile("", 0, "/sys/a"): "never", DeviceFile("", 0, "/sys/b"): "1"}
    plan = decide(CrashGuardState(values, frozenset(values), {"/sys/a": "madvise"}), {})
    assert plan.originals == {"/sys/a": "madvise", "/sys/b": "1"}
    assert plan.changes == ()


def test_of_a_pair_the_zero_is_written_last() -> None:
    kept = {"/sys/bytes": "4096", "/sys/ratio": "0"}
    plan = decide(state({"/sys/bytes": "0", "/sys/ratio": "5"}, *kept), kept)
    assert [change.path for change in plan.changes] == ["/sys/bytes", "/sys/ratio"]


def test_a_baseline_that_names_other_files_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/shadow").write_text("secret")
    kept = {"/etc/shadow": "", "/sys/../etc/shadow": ""}
    assert CrashGuardTuner().read(KernelFS(tmp_path), parse({}), kept).values == {}


def test_a_file_that_has_vanished_is_forgotten(tmp_path: Path) -> None:
    fs, baseline = KernelFS(tmp_path), Originals(tmp_path / "run", "boot")
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys/a").write_text("1")
    (tmp_path / "sys/b").write_text("2")
    engine = Engine(CrashGuardTuner(), fs, baseline, Journal(tmp_path / "journal"))
    engine.apply(parse({"files": "/sys/*"}))
    fs.write("/sys/a", "9")
    (tmp_path / "sys/b").unlink()
    assert engine.restore().failed == {}
    assert fs.read("/sys/a") == "1"
    assert baseline.all() == {}


# --- devices: a name that another one has now -----------------------------------------------------

READ_AHEAD = "queue/read_ahead_kb"
GUARDED = {"files": f"/sys/block/*/{READ_AHEAD}"}

Guard = Engine[CrashGuardPolicy, CrashGuardState]


@pytest.fixture
def fs(tmp_path: Path) -> FakeDisks:
    return FakeDisks(tmp_path / "root")


@pytest.fixture
def guard(fs: FakeDisks, tmp_path: Path) -> Guard:
    baseline, journal = Originals(tmp_path / "run", "boot"), Journal(tmp_path / "journal")
    return Engine(CrashGuardTuner(), fs, baseline, journal)


def plug(fs: FakeDisks, name: str, kib: int = 128) -> None:
    """A device that the kernel adds, with its values."""
    fs.add(name, f"{LOOP}{name}")
    fs.file(f"/sys/block/{name}/{READ_AHEAD}", str(kib))


def read_ahead(fs: FakeDisks, name: str) -> int:
    return fs.read_number(f"/sys/block/{name}/{READ_AHEAD}")


def set_read_ahead(fs: FakeDisks, name: str, kib: int) -> None:
    """As TuneD's own disk plugin does."""
    fs.write(f"/sys/block/{name}/{READ_AHEAD}", str(kib))


def kept(guard: Guard) -> dict[str, str]:
    return dict(guard.originals.record("crash_guard").originals)


@pytest.mark.parametrize(
    ("gone", "comes"),
    [
        pytest.param("sdb", "sdb", id="another disk in a hot-swap bay (zbx-smartctl 73)"),
        pytest.param("sdb", "sdc", id="a USB disk after a reset (f3 10, DietPi 4499)"),
        pytest.param("nvme7n1", "nvme1n1", id="NVMe after a subsystem reset (nvme-cli 1159)"),
        pytest.param("loop33", "loop33", id="a loop device made again (util-linux 3197)"),
        pytest.param("vdb", "vda", id="a guest's disk, unplugged and plugged (tp-libvirt 2120)"),
        pytest.param("dm-3", "dm-3", id="a number of device-mapper, given again"),
    ],
)
def test_an_original_is_not_written_to_a_disk_that_came_later(
    fs: FakeDisks, guard: Guard, gone: str, comes: str
) -> None:
    plug(fs, gone, 777)
    plug(fs, "sdx", 99)
    guard.apply(parse(GUARDED))
    for name in (gone, "sdx"):
        set_read_ahead(fs, name, 4096)
    fs.pull(gone)
    plug(fs, comes, 256)
    assert guard.restore().failed == {}
    assert (read_ahead(fs, comes), read_ahead(fs, "sdx")) == (256, 99)
    assert kept(guard) == {}


def test_that_it_is_not_written_is_said(
    fs: FakeDisks, guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tuned")
    plug(fs, "sdb", 777)
    asked = parse(GUARDED)
    guard.apply(asked)
    fs.pull("sdb")
    plug(fs, "sdb", 256)
    said = (
        "sdb is another device now: it was removed and added since;"
        " /sys/block/sdb/queue/read_ahead_kb was 777, which is not restored"
    )
    applied = guard.apply(asked)
    assert f"crash_guard: {said}" in caplog.messages
    assert [str(one) for one in guard.verify(applied, asked, False)] == [
        f"verify: note: crash_guard: {said}"
    ]
    assert list(kept(guard).values()) == ["256"], "the one that came has an original of its own"


def test_what_has_become_of_a_device_is_known(fs: FakeDisks, guard: Guard) -> None:
    for name in ("sda", "sdb", "sdc"):
        plug(fs, name)
    guard.apply(parse(GUARDED))
    originals = kept(guard)
    fs.pull("sda")
    fs.pull("sdb")
    plug(fs, "sdb")
    tuner = CrashGuardTuner()
    found = tuner.look(fs, parse({}), originals)
    assert [tuner.gone(found, setting) for setting in sorted(originals)] == [
        "sda no longer exists",
        "sdb is another device now: it was removed and added since",
        "",
    ]
    assert paths(fs, originals) == {f"/sys/block/sdc/{READ_AHEAD}": "128"}


def test_an_original_follows_a_device_that_was_renamed(fs: FakeDisks, guard: Guard) -> None:
    """Network interfaces: a dock's card gets the name of one that was renamed (systemd 33104)."""
    for name in ("eth0", "eth1"):
        fs.numbers[name] = int(name[-1]) + 1
        fs.file(f"/sys/class/net/{name}/mtu", "1500")
        fs.file(f"/proc/sys/net/ipv4/conf/{name}/rp_filter", name[-1])
    asked = parse({"files": "/sys/class/net/*/mtu /proc/sys/net/ipv4/conf/*/rp_filter"})
    guard.apply(asked)
    (Path(fs.root) / "sys/class/net/eth0").rename(Path(fs.root) / "sys/class/net/lan")
    sysctls = Path(fs.root) / "proc/sys/net/ipv4/conf"
    (sysctls / "eth0").rename(sysctls / "lan")
    fs.numbers.update(lan=1, eth0=3)
    fs.file("/sys/class/net/eth0/mtu", "1400")
    fs.file("/proc/sys/net/ipv4/conf/eth0/rp_filter", "2")
    fs.write("/sys/class/net/lan/mtu", "9000")
    fs.write("/proc/sys/net/ipv4/conf/lan/rp_filter", "2")
    fs.write("/sys/class/net/eth1/mtu", "9000")
    assert guard.restore().failed == {}
    assert [fs.read_number(f"/sys/class/net/{one}/mtu") for one in ("lan", "eth1", "eth0")] == [
        1500, 1500, 1400,
    ]  # fmt: skip
    assert fs.read("/proc/sys/net/ipv4/conf/lan/rp_filter") == "0"
    assert fs.read("/proc/sys/net/ipv4/conf/eth0/rp_filter") == "2"
    assert kept(guard) == {}


def test_what_an_older_version_kept_is_restored_by_name(fs: FakeDisks, guard: Guard) -> None:
    plug(fs, "sda", 4096)
    path = f"/sys/block/sda/{READ_AHEAD}"
    guard.originals.keep("crash_guard", {path: "777", "/sys/block/sdz/queue/read_ahead_kb": "9"})
    guard.apply(parse(GUARDED))
    assert read_ahead(fs, "sda") == 777
    assert kept(guard) == {f"/sys/block/sda#{fs.numbers['sda']}/{READ_AHEAD}": "777"}
    guard.originals.keep("crash_guard", {path: "777"})
    set_read_ahead(fs, "sda", 4096)
    guard.restore()
    assert read_ahead(fs, "sda") == 777
    assert kept(guard) == {}


def test_what_cannot_be_told_is_pending_and_keeps_no_other_waiting(
    fs: FakeDisks, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug(fs, "sda", 777)
    fs.file("/proc/sys/vm/swappiness", "60")
    guard.apply(parse({"files": f"{GUARDED['files']} /proc/sys/vm/swappiness"}))
    set_read_ahead(fs, "sda", 4096)
    fs.write("/proc/sys/vm/swappiness", "10")
    with monkeypatch.context() as broken:

        def refuses(_fs: FakeDisks, path: str) -> dict[str, int]:
            raise KernelFileError(path, "Input/output error")

        broken.setattr(FakeDisks, "entries", refuses)
        guard.restore()
    assert (read_ahead(fs, "sda"), fs.read("/proc/sys/vm/swappiness")) == (4096, "60")
    assert list(guard.originals.record("crash_guard").pending.values()) == [
        "it is not known whether sda is the same device: cannot read /sys/block: Input/output error"
    ]
    guard.restore()
    assert read_ahead(fs, "sda") == 777
    assert kept(guard) == {}
