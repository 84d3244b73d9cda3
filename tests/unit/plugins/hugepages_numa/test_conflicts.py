# SPDX-License-Identifier: GPL-2.0-or-later
"""hugetlbfs mounts, who else decides on huge pages, and `tuned-virt hugepages plan`."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.hugetlb import G1, M2, FakeHugetlb, Memory
from tuned_virt import cli
from tuned_virt.cli import hugepages_plan, settings_file
from tuned_virt.core.guest_source import FixedGuests
from tuned_virt.core.originals import Originals
from tuned_virt.core.state_file import HUGE_PAGES_PROGRESS
from tuned_virt.kernel.commands import ToolError
from tuned_virt.kernel.files import KernelFileError, KernelFS, NotDone
from tuned_virt.plugins.hugepages_numa import conflicts, mounts, parse, progress, state
from tuned_virt.plugins.hugepages_numa.mounts import Mounted
from tuned_virt.plugins.hugepages_numa.planner import MountChange
from tuned_virt.plugins.hugepages_numa.plugin import HugepagesTuner
from tuned_virt.plugins.hugepages_numa.progress import Progress
from tuned_virt.plugins.hugepages_numa.setting_types import HugetlbMount, MountSetting, mount_value

GIB = 1 << 20

TABLE = """\
hugetlbfs /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0
none /dev/huge\\040pages hugetlbfs rw,pagesize=1024M,mode=1770 0 0
none /old hugetlbfs rw 0 0
tmpfs /run tmpfs rw 0 0
"""


def put(root: Path, path: str, text: str = "") -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def said(root: Path) -> list[str]:
    return list(conflicts.read(KernelFS(root)))


# --- mounts ------------------------------------------------------------------------------------


def test_mounts_are_read_with_their_sizes(tmp_path: Path) -> None:
    put(tmp_path, mounts.TABLE, TABLE)
    assert mounts.read(KernelFS(tmp_path), M2) == [
        Mounted("/dev/hugepages", M2),
        Mounted("/dev/huge pages", G1),
        Mounted("/old", M2),
    ]


def test_a_mount_that_is_there_is_used(tmp_path: Path) -> None:
    put(tmp_path, mounts.TABLE, TABLE)
    (tmp_path / "empty").mkdir()
    fs = KernelFS(tmp_path)
    there = mounts.read(fs, M2)
    systemds = HugetlbMount("/dev/hugepages", gid="36", mode="1770")
    assert str(mounts.found(fs, systemds, M2, there)) == "/dev/hugepages gid=36 mode=1770"
    assert str(mounts.found(fs, systemds, G1, there)) == "2048 KiB pages"
    assert str(mounts.found(fs, HugetlbMount("/empty"), M2, there)) == "absent"
    assert str(mounts.found(fs, HugetlbMount("/nowhere"), M2, there)) == "absent, no folder"


def test_what_an_option_says_is_what_its_setting_reads() -> None:
    mount = mounts.parse("mount_1G", "/dev/hugepages1G  mode=1770 gid=36")
    assert str(mount) == "/dev/hugepages1G gid=36 mode=1770"
    assert mounts.parse("", str(mount)) == mount


def test_a_mount_behind_a_symbolic_link_is_seen(tmp_path: Path) -> None:
    put(tmp_path, mounts.TABLE, "hugetlbfs /run/huge hugetlbfs rw,pagesize=2M 0 0\n")
    (tmp_path / "run/huge").mkdir(parents=True)
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to("../run")
    fs = KernelFS(tmp_path)
    found = mounts.found(fs, HugetlbMount("/var/run/huge"), M2, mounts.read(fs, M2))
    assert str(found) == "/var/run/huge"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What mount(8) and umount(8) are asked for; they need root."""
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(mounts, "_run", lambda *command: commands.append(command))
    return commands


def write(path: Path, text: str) -> None:
    """What a mount's setting reads in text, made so."""
    mounts.write(KernelFS(), MountSetting(G1, str(path)), mount_value(str(path), text))


def mounted_at(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    there = [Mounted(str(path), G1) for path in paths]
    monkeypatch.setattr(mounts, "read", lambda fs, default: there)


def test_a_folder_that_cannot_be_removed_now_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: list[tuple[str, ...]]
) -> None:
    """What is there and not empty is somebody's; what the kernel refuses is not done."""
    path = tmp_path / "hp"
    path.mkdir()
    mounted_at(monkeypatch)
    with monkeypatch.context() as patch:

        def refuse(_path: str) -> None:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

        patch.setattr(os, "rmdir", refuse)
        with pytest.raises(NotDone, match="Cannot allocate memory"):
            write(path, f"absent, no folder {path}")
    (path / "theirs").touch()
    write(path, f"absent, no folder {path}")
    assert path.exists()
    (path / "theirs").unlink()
    write(path, f"absent, no folder {path}")
    assert not path.exists()


@pytest.mark.parametrize(
    ("before", "left"),
    [
        ("absent", ["a", "a/b", "a/b/c"]),
        ("2048 KiB pages", ["a", "a/b", "a/b/c"]),
        ("absent, no folder", ["a", "a/b"]),
        ("absent, no folder {}/a/b", ["a"]),
        ("absent, no folder {}/a", []),
    ],
)
@pytest.mark.parametrize("mounted", [True, False])
def test_what_was_at_the_path_before_is_there_again(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    run: list[tuple[str, ...]],
    before: str,
    left: list[str],
    mounted: bool,
) -> None:
    path = tmp_path / "a/b/c"
    path.mkdir(parents=True)
    mounted_at(monkeypatch, *([path] if mounted else []))
    write(path, before.format(tmp_path))
    assert run == ([("umount", "--", str(path))] if mounted else []), "unless others did it"
    assert [str(found.relative_to(tmp_path)) for found in sorted(tmp_path.rglob("*"))] == left


def test_a_folder_that_others_use_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: list[tuple[str, ...]]
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/others").touch()
    mounted_at(monkeypatch)
    write(tmp_path / "a/b", f"absent, no folder {tmp_path}/a")
    assert list(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a/others"]
    there = HugetlbMount("/a/b")
    change = MountChange("", "/a/b", there, mount_value("/a/b", "absent, no folder /a"), "")
    assert HugepagesTuner().writer.took(change, mount_value("/a/b", "absent, no folder"))
    assert not HugepagesTuner().writer.took(change, there)
    assert not HugepagesTuner().writer.took(change, mount_value("/a/b", "4 KiB pages"))


def test_a_folder_is_made_for_root_alone_to_write(
    tmp_path: Path, run: list[tuple[str, ...]]
) -> None:
    path = tmp_path / "a/b"
    before = mounts.found(KernelFS(), HugetlbMount(str(path)), G1, [])
    assert str(before) == f"absent, no folder {tmp_path}/a"
    umask = os.umask(0)
    try:
        write(path, f"{path} mode=0700")
    finally:
        os.umask(umask)
    options = "pagesize=1048576K,mode=0700"
    assert run == [("mount", "-t", "hugetlbfs", "-o", options, "hugetlbfs", str(path))]
    assert {oct(folder.stat().st_mode & 0o777) for folder in (path, path.parent)} == {"0o755"}


def test_a_mount_that_fails_leaves_no_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*command: str) -> None:
        raise ToolError("mount: permission denied")

    monkeypatch.setattr(mounts, "_run", fail)
    with pytest.raises(KernelFileError, match="permission denied"):
        write(tmp_path / "a/b", f"{tmp_path}/a/b")
    assert list(tmp_path.iterdir()) == []


# --- conflicts ---------------------------------------------------------------------------------


def test_sysctl_files_and_profiles_that_set_pools_are_named(tmp_path: Path) -> None:
    put(tmp_path, "/etc/sysctl.d/90-huge.conf", "# vm.nr_hugepages=1\nvm.nr_hugepages = 40\n")
    put(tmp_path, "/usr/lib/sysctl.d/90-huge.conf", "vm.nr_overcommit_hugepages=1\n")
    put(tmp_path, "/usr/lib/sysctl.d/10-fine.conf", "vm.swappiness=1\n")
    put(tmp_path, "/etc/tuned/active_profile", "mine\n")
    put(tmp_path, "/etc/tuned/mine/tuned.conf", "[main]\ninclude=virtual-host-plus, db\n")
    put(tmp_path, "/usr/lib/tuned/profiles/db/tuned.conf", "[sysctl]\nvm.nr_hugepages=9\n")
    assert [text.partition(",")[0] for text in said(tmp_path)] == [
        "/etc/sysctl.d/90-huge.conf sets vm.nr_hugepages",
        "/usr/lib/tuned/profiles/db/tuned.conf sets vm.nr_hugepages",
    ], "a file of the same name in /etc hides that of the distribution"


def test_profiles_are_looked_for_where_tuned_does(tmp_path: Path) -> None:
    put(tmp_path, "/etc/tuned/tuned-main.conf", "profile_dirs = /usr/lib/tuned,/srv/profiles\n")
    put(tmp_path, "/etc/tuned/active_profile", "mine\n")
    put(tmp_path, "/srv/profiles/mine/tuned.conf", "[sysctl]\nvm.nr_hugepages=8\n")
    for hidden in ("/usr/lib/tuned/mine", "/etc/tuned/mine"):
        put(tmp_path, f"{hidden}/tuned.conf", "[sysctl]\nvm.nr_overcommit_hugepages=8\n")
    [text] = said(tmp_path)
    assert text.startswith("/srv/profiles/mine/tuned.conf sets vm.nr_hugepages, ")


def test_profiles_that_include_each_other_are_read_once(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "-a;../../etc/passwd")):
        put(tmp_path, f"/etc/tuned/{name}/tuned.conf", f"[main]\ninclude={other}\n")
    put(tmp_path, "/etc/tuned/active_profile", "a")
    assert said(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("/proc/70/comm", "kubelet\n", "kubelet counts huge pages only when it starts"),
        ("/proc/70/comm", "hugeadm\n", "hugeadm (libhugetlbfs) is changing"),
        ("/sys/kernel/mm/ksm/run", "1\n", "KSM is running, but never merges huge pages"),
        (
            "/sys/devices/system/memory/auto_online_blocks",
            "online_movable\n",
            "the kernel allocates no pages of 1G from it",
        ),
    ],
)
def test_others_are_named(tmp_path: Path, path: str, text: str, words: str) -> None:
    put(tmp_path, path, text)
    [only] = said(tmp_path)
    assert words in only


def test_a_service_that_fills_the_same_pools_is_named(tmp_path: Path) -> None:
    wants = tmp_path / "etc/systemd/system/sysinit.target.wants"
    wants.mkdir(parents=True)
    (wants / "hugetlb-gigantic-pages.service").symlink_to("/nowhere")
    assert said(tmp_path) == [
        "hugetlb-gigantic-pages.service is enabled too: it allocates pages of 1G at boot"
    ]


def test_a_libvirtd_that_started_before_the_mount_does_not_see_it(tmp_path: Path) -> None:
    put(tmp_path, "/dev/hugepages/x")
    fs = KernelFS(tmp_path)
    wanted = [MountSetting(M2, "/dev/hugepages")]
    put(tmp_path, "/proc/stat", "btime 1000\n")
    assert conflicts.blind(fs, wanted, {"libvirtd": os.getpid()}) == dict.fromkeys(
        wanted, "libvirtd"
    )
    put(tmp_path, "/proc/stat", f"btime {int(time.time()) + 10}\n")
    assert conflicts.blind(fs, wanted, {"libvirtd": os.getpid()}) == {}
    assert conflicts.blind(fs, wanted, {}) == {}


# --- tuned-virt hugepages plan -----------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHugetlb:
    fs = FakeHugetlb({node: Memory(8 * GIB, 6 * GIB) for node in (0, 1)})
    monkeypatch.setattr(hugepages_plan, "KernelFS", lambda: fs)
    monkeypatch.setattr(hugepages_plan, "Originals", lambda: Originals(tmp_path, "boot"))
    monkeypatch.setattr(settings_file, "FOLDER", tmp_path)
    return fs


def test_a_plan_shows_what_a_request_would_do_and_writes_nothing(
    machine: FakeHugetlb, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["hugepages", "plan", "--set", "pages_2M=0:512", "--set", "pages_1G=1:2"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        ["pages_1G", "node1", "0", "2", "set", "by", "the", "profile"],
        ["pages_2M", "node0", "0", "512", "set", "by", "the", "profile"],
    ]
    assert machine.writes == []


def test_a_plan_of_this_machines_variables(
    machine: FakeHugetlb, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "swappiness=1\nhugepages_2M=0:512,1:25%  # both\nhugepages_1G=\nthp=madvise\n"
    (tmp_path / "virtual-guest-plus-variables.conf").write_text(text)
    assert cli.main(["hugepages", "plan", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [(one["setting"], one["after"]) for one in content["changes"]] == [
        ("pages_2M node0", "512"),
        ("pages_2M node1", "1024"),
    ]
    places = [(one["node"], one["size_kib"], one["before"]) for one in content["changes"]]
    assert places == [(0, M2, "0"), (1, M2, "0")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "pages_3M=1"], "--set pages_3M: use one of boot, defrag"),
        (["--set", "pages_2M=x"], "option 'pages_2M': 'x' is not valid"),
        (["--policy", "/nonexistent"], "/nonexistent"),
        ([], "no request: give --set pages_2M=0:512"),
    ],
)
def test_a_request_that_cannot_be_planned(
    machine: FakeHugetlb, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert cli.main(["hugepages", "plan", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_refused_request_is_1(machine: FakeHugetlb, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["hugepages", "plan", "--set", "pages_1G=0:8"]) == 1
    assert "refused   node0: 8 pages of 1G (0 exist) need 8192 MiB" in capsys.readouterr().out


def test_the_command_line_that_a_request_wants(
    machine: FakeHugetlb, capsys: pytest.CaptureFixture[str]
) -> None:
    request = ["--set", "pages_1G=0:1,1:2", "--set", "pages_2M=0:5"]
    assert cli.main(["hugepages", "cmdline", *request]) == 0
    assert capsys.readouterr().out == "hugepagesz=1G hugepages=0:1,1:2\n"
    assert cli.main(["hugepages", "cmdline", "--no-newline", *request]) == 0
    assert capsys.readouterr().out == "hugepagesz=1G hugepages=0:1,1:2"
    assert cli.main(["hugepages", "cmdline", "--set", "pages_2M=0:5"]) == 0
    assert capsys.readouterr() == ("", "")
    assert cli.main(["hugepages", "cmdline", "--json", *request]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["arguments"], content["notes"]) == ("hugepagesz=1G hugepages=0:1,1:2", [])
    assert cli.main(["hugepages", "cmdline", "--json", "--set", "pages_1G=0:1,9:4"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["arguments"] == ""
    assert content["notes"][0].startswith("pages_1G: '0:1,9:4': nodes with memory here are 0-1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "pages_1G=0:4x"], "option 'pages_1G': '0:4x' is not valid: NODE:PAGES"),
        (["--set", "pages_1G=0:1,9:4"], "pages_1G: '0:1,9:4': nodes with memory here are 0-1"),
        (["--set", "pages_16G=0:1"], "pages_16G: '0:1': huge pages of this machine are of 2M, 1G"),
        (["--set", "pages_1G=guests"], "pages_1G=guests: not included: pools of guests grow after"),
        (["--set", "pages_3M=1"], "--set pages_3M: use one of boot"),
        (["--policy", "/nonexistent"], "/nonexistent: there is no such file"),
        ([], "no request: give --set pages_2M=0:512"),
    ],
)
def test_a_request_that_cannot_be_had_leaves_the_command_line_alone(
    machine: FakeHugetlb, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert cli.main(["hugepages", "cmdline", *words]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"tuned-virt hugepages cmdline: {said}")


def test_a_kernel_that_spreads_pages_is_named(
    machine: FakeHugetlb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(release="5.14.0"))
    assert cli.main(["hugepages", "cmdline", "--set", "pages_1G=0:1,1:2"]) == 0
    out, err = capsys.readouterr()
    assert out == "hugepagesz=1G hugepages=3\n"
    assert "1G: kernels before 5.16 spread them evenly over all nodes" in err


def test_progress_of_a_process_that_is_gone_is_none(tmp_path: Path) -> None:
    file = progress.ProgressFile(tmp_path)
    file.write(Progress(0, M2, 10, 20, 512.0))
    assert file.read() == Progress(0, M2, 10, 20, 512.0)
    text = (tmp_path / HUGE_PAGES_PROGRESS).read_text()
    (tmp_path / HUGE_PAGES_PROGRESS).write_text(text.replace('"started": ', '"started": 1'))
    assert file.read() is None


def test_reading_costs_little_where_nothing_is_asked(machine: FakeHugetlb) -> None:
    found = state.read(machine, parse({}), {}, FixedGuests())
    assert (found.conflicts, found.mounts, found.demand) == ((), {}, {})
