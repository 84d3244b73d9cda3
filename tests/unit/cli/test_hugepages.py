# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt hugepages`, over fake machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuned_virt import __version__, cli
from tuned_virt.cli import hugepages as command
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.topology.huge_pages import Pool
from tuned_virt.plugins.hugepages_numa import pools as hugepages

M2 = 2048
G1 = 1 << 20

RAM = "7f2a40000000 bind:0-1 file=/dev/hugepages/ram\\040(deleted) huge dirty=15"

MAPS = f"""\
55d0c0000000 default file=/usr/bin/qemu-system-x86_64 mapped=900 N0=800 N1=100 kernelpagesize_kB=4
{RAM} N0=12 N1=3 kernelpagesize_kB=2048
7f2a80000000 prefer=static:1 anon_hugepage huge anon=2 dirty=2 N1=2 kernelpagesize_kB=1048576
7f2ac0000000 default file=/huge anon=5 dirty=5 N0=5 kernelpagesize_kB=4
7f2b00000000 default huge
7f2b40000000 default huge N0=4
7f2b80000000 default huge N0=x N=3 Nx=1 N1=- N1=1 kernelpagesize_kB=2048
7f2bc0000000 default huge N0=9 kernelpagesize_kB=zwei
7f2c00000000 default huge N0=9 kernelpagesize_kB=0
7f2c40000000 default huge N0=0 kernelpagesize_kB=64

huge
"""

POOLS = """\
node  size  total  persistent  free  surplus    MiB
   0    2M     16          16    12        0     32
   0    1G      4           4     0        0   4096
   1    2M    300         200    50      100    600
   1    1G      0           0     0        0      0
   2    2M      0           0     0        0      0
   2    1G     16          16    16        0  16384
"""

GUESTS = """\
guest         pid  node  size  pages   MiB
45             45     0    2M      1     2
[red]by?hand   42     0    2M     12    24
[red]by?hand   42     1    2M      4     8
[red]by?hand   42     1    1G      2  2048
web            41     -     -      -  3072
"""


class Host:
    """A machine in a folder; what is not put there, it does not have."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fs = KernelFS(root)

    def put(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")

    def pool(self, folder: str, size: int, total: int, free: int = 0, surplus: int = 0) -> None:
        counts = {"nr": total, "free": free, "surplus": surplus}
        for name, count in counts.items():
            self.put(f"{folder}/hugepages/hugepages-{size}kB/{name}_hugepages", str(count))

    def node(self, node: int, *pools: tuple[int, int, int, int]) -> None:
        for pool in pools:
            self.pool(f"/sys/devices/system/node/node{node}", *pool)

    def reserved(self, size: int, count: int) -> None:
        self.put(f"/sys/kernel/mm/hugepages/hugepages-{size}kB/resv_hugepages", str(count))

    def guest(self, pid: int, name: str, maps: str | None, kib: int | None = None) -> None:
        words = ["qemu", "-name", name] if name else ["qemu"]
        self.put(f"/proc/{pid}/cmdline", "\0".join(words))
        self.put(f"/proc/{pid}/statm", "1000 900 0 0")
        (self.root / f"proc/{pid}/exe").symlink_to("/usr/bin/qemu-system-x86_64")
        if kib is not None:
            self.put(f"/proc/{pid}/status", f"Name:\tqemu\nHugetlbPages:\t{kib:8} kB\nThreads:\t4")
        if maps is not None:
            self.put(f"/proc/{pid}/numa_maps", maps)

    def unreadable(self, pid: int) -> None:
        """Root reads whatever its mode, but no folder."""
        (self.root / f"proc/{pid}/numa_maps").mkdir()

    def thp(self) -> None:
        self.put("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never")
        self.put(
            "/sys/kernel/mm/transparent_hugepage/defrag",
            "always defer [defer+madvise] madvise never",
        )
        self.put("/proc/meminfo", "MemTotal: 8388608 kB\nAnonHugePages:   1048576 kB")

    def four_nodes(self) -> None:
        """Asymmetric pools; node 3 has CPUs alone."""
        self.node(0, (G1, 4, 0, 0), (M2, 16, 12, 0))
        self.node(1, (G1, 0, 0, 0), (M2, 300, 50, 100))
        self.node(2, (G1, 16, 16, 0), (M2, 0, 0, 0))
        self.node(3, (G1, 0, 0, 0), (M2, 0, 0, 0))
        self.put("/sys/devices/system/node/has_memory", "0-2")
        self.reserved(G1, 0)
        self.reserved(M2, 7)
        self.thp()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    monkeypatch.setattr(command, "KernelFS", lambda: made.fs)
    return made


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["hugepages", *arguments]) == 0
    return "".join(f"{line.rstrip()}\n" for line in capsys.readouterr().out.splitlines())


def content(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(output(capsys, "--json"))


@pytest.mark.parametrize(
    ("kib", "name"),
    [
        (4, "4K"),
        (64, "64K"),
        (1536, "1536K"),
        (M2, "2M"),
        (512 * 1024, "512M"),
        (G1, "1G"),
        (16 * G1, "16G"),
    ],
)
def test_sizes_are_named_as_on_the_kernel_command_line(kib: int, name: str) -> None:
    assert hugepages.size_name(kib) == name


def test_pools_by_node_and_size_without_nodes_that_have_no_memory(host: Host) -> None:
    host.four_nodes()
    assert hugepages.read(host.fs) == [
        Pool(0, M2, 16, 12, 0),
        Pool(0, G1, 4, 0, 0),
        Pool(1, M2, 300, 50, 100),
        Pool(1, G1, 0, 0, 0),
        Pool(2, M2, 0, 0, 0),
        Pool(2, G1, 16, 16, 0),
    ]
    assert hugepages.reserved(host.fs) == {M2: 7, G1: 0}


def test_nodes_are_sorted_by_number_and_kept_where_the_kernel_does_not_tell(host: Host) -> None:
    for node in (10, 2):
        host.node(node, (64, 3, 0, 0))
    assert [(pool.node, pool.size_kib) for pool in hugepages.read(host.fs)] == [(2, 64), (10, 64)]


def test_surplus_pages_are_not_persistent() -> None:
    assert Pool(0, M2, 100, 0, 100).persistent == 0
    assert Pool(0, M2, 300, 0, 100).persistent == 200
    assert Pool(0, 64, 17, 0, 0).mib == 1


def test_a_kernel_without_numa_has_one_node(host: Host) -> None:
    for name, count in (("nr", 5), ("free", 4), ("surplus", 1), ("resv", 2)):
        host.put(f"/sys/kernel/mm/hugepages/hugepages-2048kB/{name}_hugepages", str(count))
    assert hugepages.read(host.fs) == [Pool(0, M2, 5, 4, 1)]
    assert hugepages.reserved(host.fs) == {M2: 2}


def test_pages_that_a_process_has_mapped() -> None:
    assert hugepages.used(MAPS) == {(0, M2): 12, (1, M2): 4, (1, G1): 2}
    assert hugepages.used("") == {}


@pytest.mark.parametrize(
    ("status", "kib"),
    [
        ("VmRSS:\t 100 kB\nHugetlbPages:\t 2097152 kB\nThreads:\t1", 2 * G1),
        ("HugetlbPages:\t       0 kB", 0),
        ("VmRSS:\t 100 kB", None),
        (None, None),
    ],
)
def test_what_a_process_has_mapped_in_all(host: Host, status: str | None, kib: int | None) -> None:
    if status is not None:
        host.put("/proc/41/status", status)
    assert hugepages.mapped(host.fs, 41) == kib


def test_the_whole_picture(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.four_nodes()
    host.guest(41, "guest=web,debug-threads=on", None, kib=3 * G1)
    host.unreadable(41)
    host.guest(42, "[red]by\033hand", MAPS)
    host.guest(43, "small", None, kib=0)
    host.unreadable(43)
    host.guest(44, "none", MAPS.splitlines()[0])
    host.guest(45, "", "7f00 default huge N0=1 kernelpagesize_kB=2048", kib=M2)
    assert output(capsys) == (
        f"{POOLS}"
        "reserved  2M: 7, 1G: 0 (free pages that are already promised, on all nodes together)\n"
        "THP       enabled=madvise, defrag=defer+madvise, 1024 MiB in use (AnonHugePages)\n"
        "guests    run as root to see which guest uses them\n"
        f"{GUESTS}"
    )


def test_transparent_huge_pages_of_shared_memory_and_by_size(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.thp()
    folder = "/sys/kernel/mm/transparent_hugepage"
    host.put(f"{folder}/shmem_enabled", "always within_size [advise] never deny force")
    host.put(f"{folder}/hugepages-64kB/enabled", "always inherit madvise [never]")
    host.put(f"{folder}/hugepages-2048kB/enabled", "always [inherit] madvise never")
    found = content(capsys)["transparent"]
    assert found["shmem_enabled"] == "advise"
    assert found["sizes"] == {"64K": "never", "2M": "inherit"}
    assert "defrag=defer+madvise, shmem_enabled=advise, 2M: inherit, 1024 MiB" in output(capsys)


def test_who_holds_pages_and_is_no_guest(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """A DPDK switch looked like a leak."""
    host.node(0, (M2, 64, 32, 0))
    host.guest(41, "web", MAPS, kib=M2)
    host.put("/proc/50/comm", "ovs-vswitchd")
    host.put("/proc/50/status", f"HugetlbPages:\t{32 * M2} kB")
    host.put("/proc/50/numa_maps", "7f00 default file=/x huge N0=32 kernelpagesize_kB=2048")
    host.put("/proc/51/status", "HugetlbPages:\t0 kB")
    host.put("/proc/self/mounts", "hugetlbfs /dev/hugepages hugetlbfs rw,pagesize=2M 0 0")
    text = output(capsys)
    assert ["ovs-vswitchd", "50", "0", "2M", "32", "64"] in [
        line.split() for line in text.splitlines()
    ]
    assert "mount     /dev/hugepages: pages of 2M" in text
    found = content(capsys)
    use = {"node": 0, "size": "2M", "size_kib": M2, "pages": 32, "mib": 64}
    assert found["others"] == [
        {"process": "ovs-vswitchd", "pid": 50, "mapped_mib": 64, "used": [use]}
    ]
    assert found["mounts"] == [{"path": "/dev/hugepages", "size": "2M"}]


def test_for_programs(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.four_nodes()
    host.guest(41, "web", None, kib=3 * G1)
    host.unreadable(41)
    host.guest(42, "db", RAM + " N1=3 kernelpagesize_kB=2048", kib=3 * M2)
    found = content(capsys)
    assert found["pools"][2] == {
        "node": 1,
        "size": "2M",
        "size_kib": M2,
        "total": 300,
        "persistent": 200,
        "free": 50,
        "surplus": 100,
        "mib": 600,
    }
    assert found["reserved"] == {"2M": 7, "1G": 0}
    use = {"node": 1, "size": "2M", "size_kib": M2, "pages": 3, "mib": 6}
    assert found["guests"] == [
        {"guest": "db", "uuid": "", "pid": 42, "mapped_mib": 6, "used": [use]},
        {"guest": "web", "uuid": "", "pid": 41, "mapped_mib": 3072, "used": None},
    ]
    assert found["guests_remark"] == command.NOT_ROOT
    assert found["transparent"] == {
        "enabled": "madvise",
        "defrag": "defer+madvise",
        "anonymous_mib": 1024,
    }


def test_guests_of_small_pages_are_counted_without_reading_their_maps(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.four_nodes()
    host.guest(41, "a", MAPS, kib=0)
    host.guest(42, "b", "")
    shown = output(capsys)
    assert "guests    2 running, none uses pages of these pools\n" in shown
    assert "root" not in shown
    assert [guest["used"] for guest in content(capsys)["guests"]] == [[], []]


def test_without_guests_nothing_is_said_of_them(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.four_nodes()
    assert "guest" not in output(capsys)


def test_a_kernel_that_has_no_numa_maps(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.pool("/sys/kernel/mm", M2, 600, 88)
    host.guest(41, "web", None, kib=G1)
    assert hugepages.read(host.fs) == [Pool(0, M2, 600, 88, 0)]
    found = content(capsys)
    assert found["guests_remark"] == command.NOT_TOLD
    assert found["guests"] == [
        {"guest": "web", "uuid": "", "pid": 41, "mapped_mib": 1024, "used": None}
    ]


def test_a_guest_that_ends_meanwhile_is_left_out(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.four_nodes()
    host.guest(41, "web", None)

    def ends(fs: KernelFS, pid: int) -> None:
        (host.root / f"proc/{pid}").rename(host.root / "proc/gone")

    monkeypatch.setattr(hugepages, "mapped", ends)
    found = content(capsys)
    assert (found["guests"], found["guests_remark"]) == ([], "")


def test_a_kernel_without_huge_pages(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.guest(41, "web", MAPS)
    assert output(capsys) == (
        "pools     this kernel has no huge pages\n"
        "THP       no transparent huge pages in this kernel\n"
    )
    found = content(capsys)
    assert found == {
        "version": __version__,
        "kind": "hugepages",
        "pools": [],
        "reserved": {},
        "guests": [],
        "guests_remark": "",
        "others": [],
        "mounts": [],
        "transparent": None,
    }


def test_transparent_huge_pages_alone(host: Host) -> None:
    host.thp()
    assert hugepages.transparent(host.fs) == hugepages.TransparentHugePages(
        "madvise", "defer+madvise", G1
    )
    assert hugepages.read(host.fs) == []


@pytest.mark.parametrize(
    ("words", "status", "printed"),
    [
        (
            "--set pages_1G=0:4,1:2 --nodes 0-1 --kernel 6.14 --kargs",
            0,
            'kargs = ["hugepagesz=1G", "hugepages=0:4,1:2"]\n',
        ),
        ("--set pages_1G=0:4,1:4 --nodes 0-1 --kernel 5.14", 0, "hugepagesz=1G hugepages=8\n"),
        ("--set pages_1G=0:4,5:4 --nodes 0-1 --kernel 6.14 --kargs", 2, ""),
        ("--set pages_2M=0:4 --nodes 0 --kernel 6.14 --kargs", 2, ""),
        ("--set pages_1G=0:4 --nodes x", 2, ""),
        ("--set pages_1G=0:4 --nodes 0 --kernel new", 2, ""),
    ],
)
def test_arguments_for_another_machine(
    words: str, status: int, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["hugepages", "cmdline", *words.split()]) == status
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--set pages_1G=0:25% --nodes 0-1 --kargs", "pages_1G: '0:25%': the memory of another"),
        ("--set pages_2M=0:4 --nodes 0 --kargs", "no pages of 1G or more are requested"),
    ],
)
def test_why_nothing_is_printed_for_another_machine(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["hugepages", "cmdline", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
