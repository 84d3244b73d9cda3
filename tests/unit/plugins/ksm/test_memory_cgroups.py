# SPDX-License-Identifier: GPL-2.0-or-later
"""Unmerging where guests live in memory cgroups, of both versions, on every level."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.unit.kernel import FRESH
from tuned_virt.core.plan import Plan
from tuned_virt.kernel.files import INITIAL_PID_NAMESPACE, KernelFS
from tuned_virt.plugins import ksm
from tuned_virt.plugins.ksm import FOLDER, memory_cgroups
from tuned_virt.plugins.ksm.memory_cgroups import MemoryCgroup

MIB = 1 << 20
PAGES = 256
"""Pages of 4 KiB a MiB."""

CGROUP = "/sys/fs/cgroup"
V1 = f"""34 31 0:31 / {CGROUP}/memory rw shared:9 - cgroup cgroup rw,memory
35 31 0:32 / {CGROUP}/unified rw - cgroup2 cgroup2 rw
"""
V2 = f"34 31 0:31 / {CGROUP} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
PLACE = {V1: "5:memory:{0}\n1:name=systemd:{0}\n0::/elsewhere\n", V2: "0::{0}\n"}


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuned_virt.model.topology.page_size", lambda: 4096)


class Machine:
    """Processes of 150 MiB merged to 1 MiB, on a host with much memory available."""

    def __init__(self, root: Path, mounts: str, counted: bool = True, zero: int = 0) -> None:
        self.root = root
        self.mounts = mounts
        self.counted = counted
        shared = {} if zero else {"pages_shared": PAGES, "pages_sharing": 299 * PAGES}
        numbers = {**FRESH, **shared, "ksm_zero_pages": zero, "run": 0}
        self.write({f"{FOLDER}/{name}": str(value) for name, value in numbers.items()})
        self.write(
            {"/proc/meminfo": f"MemAvailable: {1 << 30} kB\n", "/proc/self/mountinfo": mounts}
        )
        self.write({"/proc/self/ksm_merging_pages": "0"} if counted else {})
        (root / "proc/self/ns").mkdir(parents=True)
        (root / "proc/self/ns/pid").symlink_to(INITIAL_PID_NAMESPACE)

    def write(self, files: Mapping[str, str]) -> None:
        for path, text in files.items():
            file = self.root / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def guest(self, pid: int, cgroup: str, zero: int = 0) -> None:
        home = f"/proc/{pid}"
        self.write(
            {
                f"{home}/cgroup": PLACE[self.mounts].format(cgroup),
                f"{home}/comm": "qemu-kvm",
                f"{home}/cmdline": "qemu-kvm\0-name\0g",
                f"{home}/status": f"RssAnon: {150 * 1024} kB\n",
            }
        )
        if self.counted:
            merging = "0" if zero else str(150 * PAGES)
            self.write({f"{home}/ksm_merging_pages": merging})
            self.write({f"{home}/ksm_stat": f"ksm_rmap_items 0\nksm_zero_pages {zero}\n"})

    def cgroup(self, path: str, limit: int | None, used: int, cache: int = 0) -> None:
        if self.mounts == V1:
            home, total = f"{CGROUP}/memory{path}", "total_"
            text = str(9223372036854771712 if limit is None else limit * MIB)
            files = {"memory.limit_in_bytes": text, "memory.usage_in_bytes": str(used * MIB)}
        else:
            home, total = f"{CGROUP}{path}", ""
            text = "max" if limit is None else str(limit * MIB)
            files = {"memory.max": text, "memory.high": "max", "memory.current": str(used * MIB)}
        stat = f"{total}inactive_file {cache * MIB}\n{total}active_file 0\nanon {used * MIB}\n"
        self.write(
            {f"{home}/{name}": text for name, text in {**files, "memory.stat": stat}.items()}
        )

    def plan(self, **options: str) -> Plan:
        return ksm.plan(ksm.parse(options), ksm.read(KernelFS(self.root)), {})


REFUSED = (
    "run cannot become 2: unmerging 299 MiB of memory cgroup {} needs 358 MiB available in it, {}"
    " MiB are (limit {} MiB, {} used, {} of it cache): the kernel would kill its processes; raise"
    " the limit or stop guests in it"
)


@pytest.mark.parametrize("mounts", [V1, V2])
@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"/machine.slice": (65, 7, 0)}, REFUSED.format("/machine.slice", 58, 65, 7, 0)),
        ({"/machine.slice": (400, 60, 19)}, ""),
        ({"/machine.slice": (400, 60, 17)}, REFUSED.format("/machine.slice", 357, 400, 60, 17)),
        ({"/machine.slice": (None, 9, 0), "/": (300, 2, 0)}, REFUSED.format("/", 298, 300, 2, 0)),
        (
            {"/machine.slice/b.scope/libvirt": (188, 9, 0)},
            "of memory cgroup /machine.slice/b.scope",
        ),
        ({"/elsewhere": (1, 1, 0)}, ""),
        ({}, ""),
    ],
)
def test_what_a_cgroup_cannot_take_is_refused_with_its_name_and_numbers(
    tmp_path: Path,
    mounts: str,
    counted: bool,
    limits: Mapping[str, tuple[int | None, int, int]],
    why: str,
) -> None:
    machine = Machine(tmp_path, mounts, counted)
    machine.guest(101, "/machine.slice/a.scope")
    machine.guest(102, "/machine.slice/b.scope/libvirt")
    for path, numbers in limits.items():
        machine.cgroup(path, *numbers)
    for options in ({"mode": "unmerge"}, {"run": "2", "unmerge": "force"}):
        plan = machine.plan(**options)
        assert (why in plan.refused.get("run", "")) if why else not plan.refused
        assert any(change.after == "2" for change in plan.changes) != bool(why)
    needing = machine.plan(max_page_sharing="9", unmerge="allow")
    assert (needing.refused.keys() == {"max_page_sharing"}) == bool(why)


def test_a_group_needs_what_its_own_guests_have_merged(tmp_path: Path) -> None:
    machine = Machine(tmp_path, V2)
    machine.guest(101, "/a.slice")
    machine.guest(102, "/b.slice")
    machine.cgroup("/a.slice", 181, 1)
    machine.cgroup("/b.slice", 180, 1)
    assert (
        "unmerging 150 MiB of memory cgroup /b.slice" in machine.plan(mode="unmerge").refused["run"]
    )


def test_pages_merged_with_the_zero_page_need_memory_too(tmp_path: Path) -> None:
    machine = Machine(tmp_path, V2, zero=100 * PAGES)
    machine.guest(101, "/a.slice", zero=100 * PAGES)
    machine.cgroup("/a.slice", 50, 10)
    assert (
        "unmerging 100 MiB of memory cgroup /a.slice" in machine.plan(mode="unmerge").refused["run"]
    )


def test_the_limit_that_leaves_least(tmp_path: Path) -> None:
    machine = Machine(tmp_path, V2)
    machine.guest(101, "/a.slice")
    machine.cgroup("/a.slice", 500, 100)
    machine.write({f"{CGROUP}/a.slice/memory.high": str(300 * MIB)})
    found = memory_cgroups.read(KernelFS(tmp_path), {101: 10 * PAGES})
    assert found == (MemoryCgroup("/a.slice", 300 << 10, 100 << 10, 0, 10 << 10),)
    assert found[0].available == 200 << 10
    machine.write({"/proc/101/cgroup": "0::/../outside\n"})
    assert memory_cgroups.read(KernelFS(tmp_path), {101: 1, 999: 1}) == ()
    inside = {
        "/proc/self/mountinfo": V2.replace(" / ", " /docker/0 "),
        "/proc/101/cgroup": "0::/docker/0/a.slice\n",
    }
    machine.write(inside)
    assert memory_cgroups.read(KernelFS(tmp_path), {101: 10 * PAGES}) == found
