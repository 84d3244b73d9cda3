# SPDX-License-Identifier: GPL-2.0-or-later
"""The ksm plugin on this machine's real ksmd, under every TuneD generation."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sandbox import PYTHON, REPO, Sandbox, wait_for
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins.ksm import read

KSM = "/sys/kernel/mm/ksm"
TIMED = "2.25"
"""Where the generation makes no difference, one is enough."""


def profile(**options: str) -> str:
    lines = "\n".join(f"{name}={value}" for name, value in options.items())
    return f"[main]\nsummary=ksm\n[ksm]\n{lines}\n"


def ksm(t: Sandbox) -> dict[str, str]:
    return {
        path.rpartition("/")[2]: value
        for path, value in t.snapshot().items()
        if path.startswith(KSM)
    }


@contextlib.contextmanager
def merged(mib: int = 16) -> Iterator[None]:
    """Real merged pages: two processes with the same few pages, scanned until they are one."""
    with subprocess.Popen(
        [PYTHON, str(Path(__file__).with_name("ksm_memory.py")), str(mib), "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout and holder.stdin
        assert [holder.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        try:
            wait_for("pages merged", lambda: sharing() > mib * 128, seconds=60)
            yield
        finally:
            holder.stdin.close()


def sharing() -> int:
    return int(Path(f"{KSM}/pages_sharing").read_text())


EVERYTHING = {
    "run": "1",
    "merge_across_nodes": "0",
    "max_page_sharing": "128",
    "use_zero_pages": "1",
    "pages_to_scan": "200",
    "sleep_millisecs": "50",
    "smart_scan": "0",
    "advisor_max_cpu": "30",
    "advisor_target_scan_time": "600",
    "advisor_min_pages_to_scan": "50",
    "advisor_max_pages_to_scan": "900",
    "advisor_mode": "none",
    "stable_node_chains_prune_millisecs": "5000",
}


@pytest.fixture
def unmerged() -> None:
    """Every test starts on a kernel without shared pages, as after a boot."""
    if Path(f"{KSM}/pages_shared").read_text() != "0\n":
        run = Path(f"{KSM}/run")
        before = run.read_text()
        run.write_text("2")
        run.write_text(before)


pytestmark = pytest.mark.usefixtures("unmerged")


def test_every_setting_is_set_verified_and_put_back(
    tuned: Callable[..., Sandbox], version: str
) -> None:
    t = tuned(version, profiles={"all": profile(**EVERYTHING)})
    before = t.snapshot()
    t.switch("all")
    assert ksm(t)["advisor_mode"] == "[none] scan-time"
    assert {**ksm(t), "advisor_mode": "none"} == EVERYTHING
    assert t.verify()
    for setting, value in EVERYTHING.items():
        assert f"verify: passed: 'ksm {setting}' = '{value}'" in t.verify_lines
    t.run(["sh", "-c", f"echo 77 > {KSM}/sleep_millisecs"])
    assert not t.verify()
    assert "verify: failed: 'ksm sleep_millisecs' = '77', expected '50'" in t.verify_lines
    t.off()
    assert t.snapshot() == before


def test_kill9_then_off_is_byte_identical(tuned: Callable[..., Sandbox], version: str) -> None:
    advised = {name: EVERYTHING[name] for name in EVERYTHING if name != "pages_to_scan"}
    advised["advisor_mode"] = "scan-time"
    t = tuned(version, profiles={"all": profile(**advised)})
    before = t.snapshot()
    t.switch("all")
    t.kill9()
    t.start()
    assert t.verify()
    t.off()
    assert t.snapshot() == before


def test_switch_after_kill9_puts_back_what_the_new_profile_leaves(
    tuned: Callable[..., Sandbox], version: str
) -> None:
    t = tuned(version, profiles={"all": profile(**EVERYTHING), "few": profile(run="1")})
    before = t.snapshot()
    t.switch("all")
    t.kill9()
    t.write("/etc/tuned/active_profile", "few\n")
    t.start()
    assert ksm(t) == {**{k: before[f"{KSM}/{k}"] for k in ksm(t)}, "run": "1"}
    t.switch("all")
    t.off()
    assert t.snapshot() == before


def test_a_switch_reload_or_restart_that_wants_the_same_writes_nothing(
    tuned: Callable[..., Sandbox], version: str
) -> None:
    t = tuned(version, profiles={"one": profile(run="1"), "two": profile(run="1")})
    t.switch("one")
    with t.log_of() as lines:
        t.switch("two")
        t.sighup()
        t.kill9()
        t.start()
        t.call("switch_profile", "no-such-profile")
        wait_for("applied again", lambda: "applied" in t.log().splitlines()[-1])
    assert t.verify()
    assert not [line for line in lines if "ksm: run" in line]


def test_a_switch_to_a_profile_without_ksm_puts_it_back(
    tuned: Callable[..., Sandbox], version: str
) -> None:
    t = tuned(version, profiles={"one": profile(run="1"), "none": "[main]\nsummary=none\n"})
    before = t.snapshot()
    t.switch("one")
    t.switch("none")
    wait_for("ksm back", lambda: t.snapshot() == before, seconds=5)


def test_sigterm_puts_back(tuned: Callable[..., Sandbox], version: str) -> None:
    t = tuned(version, profiles={"all": profile(**EVERYTHING)})
    before = t.snapshot()
    t.switch("all")
    t.terminate()
    assert t.snapshot() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"run": "7"}, "option 'run': '7' is not valid: one of 0, 1, 2"),
        ({"pages_to_scan": "-1"}, "option 'pages_to_scan': '-1' is not valid: a whole number from"),
        ({"pages_to_scan": "0"}, "option 'pages_to_scan': '0' is not valid: a whole number from"),
        (
            {"advisor_mode": "fast"},
            "option 'advisor_mode': 'fast' is not valid: one of none",
        ),
        ({"pages_per_scan": "5"}, "option 'pages_per_scan': '5' is not valid: there is no such"),
        ({"observe": "maybe"}, "option 'observe': 'maybe' is not valid: 1 or 0"),
    ],
)
def test_bad_input_is_one_clear_line_and_nothing_is_set(
    tuned: Callable[..., Sandbox], version: str, options: dict[str, str], said: str
) -> None:
    t = tuned(version, profiles={"bad": profile(sleep_millisecs="50", **options)})
    before = t.snapshot()
    t.switch("bad")
    assert t.active() == "bad", "the switch survives"
    assert [line.count(said) for line in t.log().splitlines() if said in line] == [1]
    assert t.snapshot() == before
    assert not t.verify()
    assert said in t.verify_lines
    t.off()
    assert t.snapshot() == before


def test_a_read_only_sys(tuned: Callable[..., Sandbox], version: str) -> None:
    t = tuned(
        version,
        profiles={"all": profile(run="1", sleep_millisecs="50")},
        setup="mount -o remount,bind,ro /sys",
    )
    before = t.snapshot()
    t.switch("all")
    said = f"cannot write '1' to {KSM}/run: Read-only file system"
    assert len([line for line in t.log().splitlines() if said in line]) == 1
    assert not t.verify()
    assert f"verify: failed: 'ksm run' = '0', expected '1' ({said})" in t.verify_lines
    t.off()
    assert t.snapshot() == before
    assert not (t.root / "run/tuned-virt/baseline.json").exists()


WITHOUT_KSM = """
mkdir /tmp/mm
mount --rbind /sys/kernel/mm /tmp/mm
mount -t tmpfs tmpfs /sys/kernel/mm
mkdir /sys/kernel/mm/hugepages /sys/kernel/mm/transparent_hugepage
mount --bind /tmp/mm/hugepages /sys/kernel/mm/hugepages
mount --bind /tmp/mm/transparent_hugepage /sys/kernel/mm/transparent_hugepage
"""


def test_a_kernel_without_ksm_is_a_note(tuned: Callable[..., Sandbox], version: str) -> None:
    t = tuned(version, profiles={"all": profile(**EVERYTHING)}, setup=WITHOUT_KSM)
    t.switch("all")
    assert t.verify()
    assert "verify: note: ksm: this kernel has no KSM" in t.verify_lines


def test_a_setting_that_this_kernel_lacks(tuned: Callable[..., Sandbox], version: str) -> None:
    # An empty folder over KSM's, with two real files: an older kernel has fewer.
    older = f"""
    mkdir /tmp/ksm; mount --bind {KSM} /tmp/ksm
    mount -t tmpfs tmpfs {KSM}
    for file in run sleep_millisecs pages_shared; do
        touch {KSM}/$file; mount --bind /tmp/ksm/$file {KSM}/$file
    done
    """
    t = tuned(version, profiles={"all": profile(run="1", smart_scan="1")}, setup=older)
    t.switch("all")
    skipped = "ksm: smart_scan is skipped: this kernel has no /sys/kernel/mm/ksm/smart_scan"
    assert len([line for line in t.log().splitlines() if skipped in line]) == 1
    assert t.verify(ignore_missing=True)
    assert not t.verify()
    assert "verify: failed: ksm: smart_scan: this kernel has no" in t.verify_lines
    t.off()


def test_merged_pages_are_left_without_leave(tuned: Callable[..., Sandbox]) -> None:
    t = tuned(
        TIMED,
        profiles={
            "scan": profile(run="1", pages_to_scan="20000", sleep_millisecs="1"),
            "nodes": profile(run="1", merge_across_nodes="0"),
        },
    )
    t.switch("scan")
    with merged():
        t.switch("nodes")
        assert ksm(t)["merge_across_nodes"] == "1"
        assert ksm(t)["run"] == "1", "the rest is as asked for"
        assert not t.verify()
        assert "are merged, and unmerge is never" in t.verify_lines
        t.off()
        assert ksm(t)["run"] == "0"


def test_merged_pages_are_unmerged_with_leave(tuned: Callable[..., Sandbox]) -> None:
    t = tuned(
        TIMED,
        profiles={
            "scan": profile(run="1", pages_to_scan="20000", sleep_millisecs="1"),
            "nodes": profile(run="1", merge_across_nodes="0", unmerge="allow"),
        },
    )
    before = t.snapshot()
    t.switch("scan")
    with merged():
        t.switch("nodes")
        assert (ksm(t)["merge_across_nodes"], ksm(t)["run"]) == ("0", "1")
        assert t.verify()
        assert "unmerges" in t.log()
        t.off()
        assert t.snapshot() == before


def test_what_cannot_be_put_back_is_pending_said_and_tried_again(
    tuned: Callable[..., Sandbox],
) -> None:
    fast = {"run": "1", "pages_to_scan": "20000", "sleep_millisecs": "1"}
    t = tuned(TIMED, profiles={"nodes": profile(merge_across_nodes="0", **fast)})
    before = t.snapshot()
    t.switch("nodes")
    with merged():
        t.off()
        left = {k: v for k, v in t.snapshot().items() if v != before[k]}
        assert left == {f"{KSM}/merge_across_nodes": "0"}
        assert "merge_across_nodes not restored yet" in t.log()
        status = json.loads(t.run(["tuned-virt", "status", "--json"], check=False).stdout)
        assert "are merged" in status["pending"]["ksm merge_across_nodes"]
        refused = t.run(["tuned-virt", "restore"], check=False)
        assert refused.returncode == 1
        assert "not restored yet" in refused.stderr
    stale = t.run(["tuned-virt", "restore"], check=False)
    assert stale.returncode == 1, "pages of the dead are in the way"
    again = t.run(["tuned-virt", "restore", "--unmerge"])
    assert "merge_across_nodes is '1' as before" in again.stdout
    assert t.snapshot() == before


@contextlib.contextmanager
def memory_cgroup() -> Iterator[tuple[Path, Path]]:
    """A memory cgroup and the file of its limit, in the version that this kernel has mounted."""
    v1 = Path("/sys/fs/cgroup/memory")
    limit = "memory.limit_in_bytes" if v1.is_dir() else "memory.max"
    home = (v1 if v1.is_dir() else v1.parent) / f"tuned-virt-test-{os.getpid()}"
    home.mkdir()
    try:
        yield home, home / limit
    finally:
        wait_for("the cgroup is empty", lambda: not (home / "cgroup.procs").read_text())
        home.rmdir()


@pytest.mark.parametrize("policy", [{"mode": "unmerge"}, {"run": "2", "unmerge": "force"}])
def test_guests_in_a_cgroup_are_not_killed_by_unmerging(
    tuned: Callable[..., Sandbox], policy: dict[str, str]
) -> None:
    """The host has the memory, their cgroup has not: before, the kernel killed them, and verify
    passed."""
    fast = profile(run="1", pages_to_scan="20000", sleep_millisecs="1")
    t = tuned(TIMED, profiles={"scan": fast, "unmerge": profile(**policy)})
    t.switch("scan")
    holder = str(Path(__file__).with_name("ksm_memory.py"))
    with memory_cgroup() as (home, limit):
        start = f"echo $$ > {home}/cgroup.procs; exec {PYTHON} {holder} 60 2"
        with subprocess.Popen(
            t.command(["sh", "-c", start]), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        ) as guests:
            assert guests.stdin
            try:
                wait_for("pages merged", lambda: sharing() > 2 * 59 * 256, seconds=60)
                running = (home / "cgroup.procs").read_text()
                limit.write_text(str(50 << 20))
                t.switch("unmerge")
                why = f"of memory cgroup /{home.name} needs"
                assert not t.verify()
                assert why in t.verify_lines
                assert "(limit 50 MiB, " in t.verify_lines
                assert (home / "cgroup.procs").read_text() == running
                limit.write_text(str(400 << 20))
                t.switch("scan")
                t.switch("unmerge")
                assert t.verify()
                assert sharing() < 2 * 59 * 256 / 10
                assert (home / "cgroup.procs").read_text() == running
            finally:
                guests.stdin.close()


def test_pages_of_the_dead_are_told_from_those_of_the_living() -> None:
    """Outside of the sandboxes, whose own process namespace hides the others' processes."""
    for name, value in (("pages_to_scan", "20000"), ("run", "1")):
        Path(f"{KSM}/{name}").write_text(value)
    try:
        with merged():
            living = read(KernelFS()).merging
            if not KernelFS().sees_all_processes():
                assert living is None, "in a container nobody can tell"
                return
            assert living is not None
            assert living > 1000
            Path(f"{KSM}/run").write_text("0")  # ksmd would drop stale pages in time
        state = read(KernelFS())
        assert state.merging is not None
        assert state.merging < 1000, "those of other programs on this machine, if any"
        assert state.pages_sharing > 1000, "stale, and in the way of merge_across_nodes"
    finally:
        for name, value in (("run", "2"), ("run", "0"), ("pages_to_scan", "100")):
            Path(f"{KSM}/{name}").write_text(value)


def test_restore_without_tuned(tuned: Callable[..., Sandbox], version: str) -> None:
    t = tuned(version, profiles={"all": profile(**EVERYTHING)})
    before = t.snapshot()
    t.switch("all")
    held = t.run(["tuned-virt", "restore"], check=False)
    assert held.returncode == 2
    assert "manages ksm: to restore: tuned-adm off" in held.stderr
    t.kill9()
    slept = before["/sys/kernel/mm/ksm/sleep_millisecs"]
    assert f"sleep_millisecs is '{slept}' as before" in t.run(["tuned-virt", "restore"]).stdout
    assert t.snapshot() == before
    assert t.run(["tuned-virt", "restore"]).stdout == "nothing to restore\n"


def test_a_damaged_or_foreign_baseline_is_said_and_set_aside(
    tuned: Callable[..., Sandbox],
) -> None:
    t = tuned(TIMED, profiles={"one": profile(run="1")})
    t.switch("one")
    t.kill9()
    file = "/run/tuned-virt/baseline.json"
    for text, said in (
        (t.read(file)[:-20], "is damaged"),
        (t.read(file).replace('"boot_id": "', '"boot_id": "0'), "is of an earlier boot"),
    ):
        t.write(file, text)
        t.start()
        assert said in t.log()
        assert t.verify()
        t.kill9()
    assert len(list((t.root / "run/tuned-virt").glob("baseline.json.*"))) == 2


def test_a_full_run_is_said_and_nothing_is_written(tuned: Callable[..., Sandbox]) -> None:
    full = "mkdir /run/tuned-virt; mount -t tmpfs -o size=4k,nr_inodes=2 tmpfs /run/tuned-virt; "
    full += "head -c 4096 /dev/zero > /run/tuned-virt/filler"
    t = tuned(TIMED, profiles={"one": profile(run="1")}, setup=full)
    before = t.snapshot()
    t.switch("one")
    assert "ksm: nothing is changed: cannot keep originals" in t.log()
    assert t.snapshot() == before
    assert not t.verify()


def test_observe_plans_logs_and_changes_nothing(
    tuned: Callable[..., Sandbox], version: str
) -> None:
    t = tuned(version, profiles={"look": profile(run="1", observe="1"), "do": profile(run="1")})
    before = t.snapshot()
    t.switch("look")
    assert t.snapshot() == before
    assert "ksm: observe: would set run: '0' -> '1' (set by the profile)" in t.log()
    assert t.verify()
    assert "verify: note: 'ksm run' = '0', observed only, would be '1'" in t.verify_lines
    t.switch("do")
    t.switch("look")
    assert t.snapshot() == before


def test_two_daemons_at_once_keep_the_true_originals(tuned: Callable[..., Sandbox]) -> None:
    first = tuned(TIMED, profiles={"all": profile(**EVERYTHING)})
    before = first.snapshot()
    second = tuned(TIMED, profiles={"all": profile(**EVERYTHING)}, start=False)
    first.switch("all")
    for file in (first.root / "run/tuned-virt").iterdir():
        second.write(f"/run/tuned-virt/{file.name}", file.read_text())
    second.start()
    second.switch("all")
    first.off()
    second.off()
    assert first.snapshot() == before


def test_two_sections_are_one_plan(tuned: Callable[..., Sandbox]) -> None:
    two = profile(run="1") + "[more]\ntype=ksm\nsleep_millisecs=60\nrun=0\n"
    t = tuned(TIMED, profiles={"two": two})
    before = t.snapshot()
    t.switch("two")
    assert (ksm(t)["run"], ksm(t)["sleep_millisecs"]) == ("0", "60")
    assert "several sections set run: '1' is overridden by '0' of [more]" in t.log()
    assert t.verify()
    t.off()
    assert t.snapshot() == before


def test_a_section_that_says_nothing_of_an_option_leaves_it_to_the_others(
    tuned: Callable[..., Sandbox],
) -> None:
    two = profile(unmerge="allow", observe="1") + "[more]\ntype=ksm\nrun=1\n"
    t = tuned(TIMED, profiles={"two": two})
    before = t.snapshot()
    t.switch("two")
    assert "gives way" not in t.log()
    assert t.snapshot() == before, "observed"


def test_an_internal_error_is_said_fails_verify_and_spares_the_rest(
    tuned: Callable[..., Sandbox], version: str
) -> None:
    broken = (
        REPO / "tuned_virt/plugins/ksm/policy.py"
    ).read_text() + "\n\ndef parse(options):\n    return 1 / 0\n"
    t = tuned(
        version,
        profiles={"both": profile(run="1") + "[sysctl]\nvm.swappiness=11\n"},
        files={"/usr/lib/python3/dist-packages/tuned_virt/plugins/ksm/policy.py": broken},
    )
    t.switch("both")
    assert t.read("/proc/sys/vm/swappiness") == "11"
    assert not t.verify()
    assert "'ksm': internal error while it was applied" in t.verify_lines
    assert "ksm: internal error, please report it" in t.log()
    t.off()
