# SPDX-License-Identifier: GPL-2.0-or-later
"""The profiles on a kernel with four NUMA nodes, loadable modules, and no KSM pages but ours."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.sandbox import PYTHON, wait_for
from tests.vm.daemon import SLOW_SECONDS, Tuned
from tests.vm.kernel import KSM, NODES, State, changed, ksm, modules, state

MEMORY = Path(__file__).resolve().parents[1] / "system/ksm_memory.py"
MIB, PAGES, CONTENTS = 1, 256, 7
"""What one holder of pages has: 256 pages, of seven contents."""

ONLINE = Path("/sys/devices/system/memory/auto_online_blocks")
FAST = {"pages_to_scan": "20000", "sleep_millisecs": "1"}
HOST_KSM = {"run": "0", "merge_across_nodes": "0"}

NEWER = {"smart_scan": "0", "advisor_mode": "scan-time"}
"""Settings that kernels before 6.7 and 6.8 lack."""


def run(*command: str, status: int = 0) -> str:
    """What a command prints that ends with a status."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == status, f"{command}\n{done.stdout}"
    return done.stdout


def settings(*names: str) -> dict[str, str]:
    """KSM's settings by name; of a choice the active word; those this kernel lacks are left out."""
    texts = {name: ksm(name) for name in names if (KSM / name).exists()}
    return {name: re.sub(r".*\[(.+)\].*", r"\1", text) for name, text in texts.items()}


def wait_for_settings(wanted: Mapping[str, str]) -> None:
    """Until KSM is set so: slow work goes on after TuneD says that the profile is applied."""
    wait_for(f"KSM with {wanted}", lambda: settings(*wanted) == wanted, SLOW_SECONDS)


def wait_for_host() -> None:
    """Until virtual-host-plus has done all its work."""
    wait_for_settings(HOST_KSM)
    wait_for("vhost_net loaded", lambda: "vhost_net" in modules(), SLOW_SECONDS)


def assert_back(before: State) -> None:
    """The kernel is, or soon becomes, as it was before."""
    with contextlib.suppress(TimeoutError):
        wait_for("all put back", lambda: not changed(before), seconds=20)
    assert changed(before) == {}


@contextlib.contextmanager
def pages_on(*nodes: int) -> Iterator[dict[int, int]]:
    """Processes that hold the same few pages, one on each node; their pids by node."""
    with contextlib.ExitStack() as stack:
        holders = {node: stack.enter_context(holder_on(node)) for node in nodes}
        for holder in holders.values():
            assert holder.stdout and holder.stdout.readline() == b"ready\n"
        yield {node: holder.pid for node, holder in holders.items()}


def holder_on(node: int) -> subprocess.Popen[bytes]:
    """A process on a node's CPUs, whose memory so comes from that node."""
    cpus = (NODES / f"node{node}/cpulist").read_text().strip()
    return subprocess.Popen(
        ["taskset", "--cpu-list", cpus, PYTHON, str(MEMORY), str(MIB), "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def wait_until_merged(pages: int) -> None:
    """Until so many pages are merged."""
    wait_for(
        f"{pages} pages merged",
        lambda: int(ksm("pages_shared")) + int(ksm("pages_sharing")) == pages,
        SLOW_SECONDS,
    )


def pages_by_node(pid: int) -> dict[int, int]:
    """How many of a process's mergeable pages are on each node (proc(5), numa_maps)."""
    lines = Path(f"/proc/{pid}/numa_maps").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{mergeable_area(pid)} "))
    return {int(node): int(count) for node, count in re.findall(r"\bN(\d+)=(\d+)", line)}


def mergeable_area(pid: int) -> str:
    """Start of the memory that a process lets KSM merge (proc(5), smaps)."""
    start = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if area := re.match(r"([0-9a-f]+)-", line):
            start = area[1]
        elif line.startswith("VmFlags:") and "mg" in line.split():
            return start
    raise AssertionError(f"no mergeable memory in {pid}")


def test_host_profile_on_four_nodes_and_the_way_back(tuned: Tuned, before: State) -> None:
    assert "vhost_net" not in modules()
    tuned.switch("virtual-host-plus")
    wait_for_host()
    verified, lines = tuned.verify()
    assert verified, lines
    status = run("tuned-virt", "status")
    assert "profile   virtual-host-plus, verified" in status
    assert "merges within NUMA nodes" in status
    assert [line.split()[:2] + line.split()[4:] for line in status.splitlines()[-5:-1]] == [
        ["0", "0-1", "10", "12", "21", "21", "31"],
        ["1", "2-3", "12", "10", "21", "21", "31"],
        ["2", "4-5", "21", "21", "10", "12", "31"],
        ["3", "6-7", "21", "21", "12", "10", "31"],
    ]
    tuned.off()
    assert_back(before)


def test_a_module_that_was_loaded_before_stays(tuned: Tuned) -> None:
    run("modprobe", "tun")
    before = state()
    tuned.switch("virtual-host-plus")
    wait_for_host()
    tuned.off()
    assert_back(before)


def test_a_module_in_use_stays_until_it_is_not(tuned: Tuned, before: State) -> None:
    tuned.switch("virtual-host-plus")
    wait_for_host()
    with open("/dev/vhost-net", "rb+", buffering=0):
        tuned.off()
        wait_for("pending", lambda: "vhost_net not restored yet: in use by 1" in tuned.log())
        assert "vhost_net" in modules()
    run("tuned-virt", "restore")
    assert_back(before)


def test_kill9_then_off(tuned: Tuned, before: State) -> None:
    tuned.switch("virtual-host-plus")
    wait_for_host()
    tuned.kill9()
    tuned.start()
    wait_for_host()
    tuned.off()
    assert_back(before)


def test_within_nodes_every_node_keeps_pages_of_its_own(tuned: Tuned, before: State) -> None:
    tuned.switch_to_ksm(run="1", merge_across_nodes="0", **FAST)
    with pages_on(0, 3) as pids:
        wait_until_merged(2 * PAGES)
        assert ksm("pages_shared") == str(2 * CONTENTS)
        assert pages_by_node(pids[0]) == {0: PAGES}
        assert pages_by_node(pids[3]) == {3: PAGES}
    tuned.off()
    assert_back(before)


def test_across_nodes_one_page_serves_all(tuned: Tuned, before: State) -> None:
    tuned.switch_to_ksm(run="1", merge_across_nodes="1", **FAST)
    with pages_on(0, 3) as pids:
        wait_until_merged(2 * PAGES)
        assert ksm("pages_shared") == str(CONTENTS)
        assert pages_by_node(pids[0]) != {0: PAGES} or pages_by_node(pids[3]) != {3: PAGES}
    tuned.off()
    assert_back(before)


def test_pages_merged_across_nodes_are_left_without_leave(tuned: Tuned, before: State) -> None:
    tuned.switch_to_ksm(run="1", **FAST)
    with pages_on(0, 2):
        wait_until_merged(2 * PAGES)
        tuned.switch_to_ksm(run="1", merge_across_nodes="auto", unmerge="never")
        wait_for_settings({"sleep_millisecs": before[f"{KSM}/sleep_millisecs"]})
        verified, lines = tuned.verify()
        assert verified, lines
        assert "note: ksm: merge_across_nodes cannot become 0: the kernel refuses it" in lines
        assert "are merged, and unmerge is never" in lines
        assert settings("run", "merge_across_nodes") == {"run": "1", "merge_across_nodes": "1"}
        tuned.off()
        assert_back(before)


def test_pages_merged_across_nodes_are_unmerged_with_leave(tuned: Tuned, before: State) -> None:
    tuned.switch_to_ksm(run="1", **FAST)
    with pages_on(0, 2):
        wait_until_merged(2 * PAGES)
        assert ksm("pages_shared") == str(CONTENTS)
        tuned.switch_to_ksm(run="1", merge_across_nodes="auto", unmerge="allow", **FAST)
        wait_for_settings({"run": "1", "merge_across_nodes": "0"})
        verified, lines = tuned.verify()
        assert verified, lines
        wait_until_merged(2 * PAGES)
        tuned.off()
        assert_back(before)


def test_unmerged_pages_are_spread_over_the_nodes(tuned: Tuned, before: State) -> None:
    tuned.switch_to_ksm(run="1", merge_across_nodes="1", **FAST)
    with pages_on(0, 2) as pids:
        wait_until_merged(2 * PAGES)
        tuned.switch_to_ksm(run="2")
        wait_for_settings({"run": "2"})
        wait_for("all unmerged", lambda: ksm("pages_shared") == "0", SLOW_SECONDS)
        for pid in pids.values():
            assert set(pages_by_node(pid)) == {0, 1, 2, 3}
    tuned.off()
    assert_back(before)


def test_guest_profile_brings_hot_plugged_memory_online(tuned: Tuned) -> None:
    ONLINE.write_text("offline")
    before = state()
    tuned.switch("virtual-guest-plus")
    wait_for("online", lambda: ONLINE.read_text() == "online\n", SLOW_SECONDS)
    verified, lines = tuned.verify()
    assert verified, lines
    tuned.off()
    assert_back(before)


@contextlib.contextmanager
def qemu_guests(count: int) -> Iterator[None]:
    """Processes that are QEMU's by the program that they run, with the same few pages each."""
    with tempfile.TemporaryDirectory() as folder:
        program = shutil.copy(os.path.realpath(PYTHON), f"{folder}/qemu-system-x86_64")
        with subprocess.Popen(
            [program, str(MEMORY), str(MIB), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONHOME": "/usr"},
        ) as holder:
            assert holder.stdin and holder.stdout
            assert [holder.stdout.readline() for _ in range(count)] == [b"ready\n"] * count
            yield
            holder.stdin.close()


def test_auto_merges_what_guests_share_and_calms_down(tuned: Tuned, before: State) -> None:
    """Also on kernels that count no scanned pages (before 6.6) and have no advisor."""
    logged = len(tuned.log())
    with qemu_guests(3):
        tuned.switch_to_ksm(mode="auto", eager="1", max_cpu="50", merge_across_nodes="1")
        wait_for("burst", lambda: "ksm: burst: 3 guests started" in tuned.log()[logged:])
        wait_for("merged", lambda: ksm("pages_shared") == str(CONTENTS), SLOW_SECONDS)
        wait_for("calm", lambda: "ksm: maintenance: " in tuned.log()[logged:], SLOW_SECONDS)
        verified, lines = tuned.verify()
        assert verified, lines
        print(run("tuned-virt", "status", "--ksm"))
        tuned.off()
    assert_back(before)


def test_what_only_newer_kernels_have(tuned: Tuned, before: State) -> None:
    here = {name: value for name, value in NEWER.items() if (KSM / name).exists()}
    logged = len(tuned.log())
    tuned.switch_to_ksm(run="1", **NEWER)
    wait_for_settings({"run": "1", **here})
    skipped = re.findall(r"(\w+) is skipped: this kernel has no /sys", tuned.log()[logged:])
    assert sorted(skipped) == sorted(NEWER.keys() - here.keys())
    verified, lines = tuned.verify()
    assert verified == (here == NEWER), lines
    run("tuned-virt", "verify", "-i")
    tuned.off()
    assert_back(before)


def test_kill9_then_restore_without_tuned(tuned: Tuned, before: State) -> None:
    tuned.switch("virtual-host-plus")
    wait_for_host()
    tuned.kill9()
    run("tuned-virt", "restore")
    assert changed(before) == {}
