# SPDX-License-Identifier: GPL-2.0-or-later
"""Isolation on a made-up host: set as asked, verified, and put back without a trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.isolated_host import DROP_INS, UNITS, FakeIrqbalance, IsolatedHost, threads_follow
from tuned_virt.core.engine import Result
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.kernel import systemd
from tuned_virt.kernel.commands import ToolError
from tuned_virt.plugins.vm_pinning.isolation.controller import (
    RECORD,
    HostIsolation,
    IsolationTuner,
)
from tuned_virt.plugins.vm_pinning.isolation.planner import HostIsolationPolicy

FOUR_TO_SEVEN = frozenset(range(4, 8))
HOST = HostIsolationPolicy(FOUR_TO_SEVEN)
ALL = HostIsolationPolicy(FOUR_TO_SEVEN, FOUR_TO_SEVEN)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IsolatedHost:
    return IsolatedHost(tmp_path / "root", monkeypatch)


def isolation(
    host: IsolatedHost, folder: Path, irqbalance: FakeIrqbalance | None = None
) -> HostIsolation:
    """As each start of TuneD's makes one."""
    tuner = IsolationTuner(irqbalance or FakeIrqbalance(None))
    return HostIsolation(host, Originals(folder, "boot"), Journal(folder / "journal"), tuner)


def said(one: HostIsolation, *ours: int) -> dict[str, Result]:
    return {finding.text: finding.result for finding in one.findings(set(ours))}


def test_all_is_set_verified_and_put_back(host: IsolatedHost, tmp_path: Path) -> None:
    before, irqbalance = host.everything(), FakeIrqbalance()
    one = isolation(host, tmp_path, irqbalance)
    one.adjust(ALL)
    assert set(host.units.values()) == {"0-3"}
    assert host.text("sys/devices/virtual/workqueue/cpumask") == "f"
    assert host.text("proc/irq/default_smp_affinity") == "f"
    moved = [host.text(f"proc/irq/{number}/smp_affinity_list") for number in (24, 25, 26)]
    assert moved == ["0-3", "0-3", "4"]
    assert irqbalance.told == ["4-7"]
    host.task(1, "systemd", "0-3", "/init.scope")
    lines = said(one)
    assert Result.FAILED not in lines.values(), lines
    assert f"'{RECORD} interrupts on isolated CPUs' = 'none'" in lines
    text = f"{RECORD}: 1 interrupts that the kernel does not let be moved: irq 26"
    assert lines[text] is Result.NOTE
    calls = len(host.calls)
    assert calls <= 1 + 2 * len(UNITS) + 1, "one to decide, two a unit, one to verify"
    one.adjust(ALL)
    assert len(host.calls) == calls, "nothing is looked at for what is asked already"
    one.adjust(HostIsolationPolicy())
    host.task(1, "systemd", "0-7", "/init.scope")
    assert host.everything() == {**before, "proc/irq/25/smp_affinity_list": "5"}
    assert irqbalance.told == ["4-7", ""]
    assert not one.incomplete


def test_a_group_whose_cpus_the_kernel_does_not_let_be_none_again_gets_all(
    host: IsolatedHost, tmp_path: Path
) -> None:
    """As kernel 6.12 where libvirt's guests keep the controller; also for CPUs added later."""
    host.takes_empty_lists = False
    one = isolation(host, tmp_path)
    one.adjust(HOST)
    groups = [f"sys/fs/cgroup/{unit}/cpuset.cpus" for unit in UNITS]
    assert [host.text(group) for group in groups] == ["0-3"] * 3
    one.adjust(HostIsolationPolicy())
    assert [host.text(group) for group in groups] == ["0-15"] * 3
    assert not one.incomplete


def test_a_group_that_keeps_its_cpus_is_pending(host: IsolatedHost, tmp_path: Path) -> None:
    host.takes_empty_lists = False
    one = isolation(host, tmp_path)
    one.adjust(HOST)
    (host.folder / "sys/devices/system/cpu/possible").unlink()
    one.adjust(HostIsolationPolicy())
    assert one.incomplete


def test_systemd_may_take_the_controller_away_meanwhile(
    host: IsolatedHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does after the last unit that needed it."""
    one = isolation(host, tmp_path)
    one.adjust(HOST)
    write = IsolatedHost.write

    def without(self: IsolatedHost, path: str, value: str) -> None:
        if path.endswith("/cpuset.cpus"):
            (self.folder / path.lstrip("/")).unlink(missing_ok=True)
        write(self, path, value)

    monkeypatch.setattr(IsolatedHost, "write", without)
    one.adjust(HostIsolationPolicy())
    assert not one.incomplete


def test_verify_says_that_it_is_still_being_applied(
    host: IsolatedHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TuneD's D-Bus thread may ask while libvirt's worker applies."""
    one = isolation(host, tmp_path)
    found: list[str] = []
    write = IsolatedHost.write

    def asks(self: IsolatedHost, path: str, value: str) -> None:
        found.extend(said(one))
        write(self, path, value)

    monkeypatch.setattr(IsolatedHost, "write", asks)
    one.adjust(HOST)
    assert found == [f"{RECORD}: still being applied"]


def test_what_systemd_leaves_in_the_control_group_is_cleared(
    host: IsolatedHost, tmp_path: Path
) -> None:
    """systemd issue 43846: a unit without AllowedCPUs= keeps those of its control group."""
    one = isolation(host, tmp_path)
    one.adjust(HOST)
    assert host.text("sys/fs/cgroup/system.slice/cpuset.cpus") == "0-3"
    one.adjust(HostIsolationPolicy())
    assert host.text("sys/fs/cgroup/system.slice/cpuset.cpus") == ""
    assert not (host.folder / DROP_INS / "system.slice.d").exists()


def test_a_drop_in_that_was_there_stays(host: IsolatedHost, tmp_path: Path) -> None:
    host._systemctl("set-property", "--runtime", "--", "user.slice", "AllowedCPUs=0-5")
    one = isolation(host, tmp_path)
    one.adjust(HOST)
    one.adjust(HostIsolationPolicy())
    assert host.units["user.slice"] == "0-5"
    assert (host.folder / DROP_INS / "user.slice.d").exists()


def test_after_a_kill_the_next_process_puts_back_what_was_there_first(
    host: IsolatedHost, tmp_path: Path
) -> None:
    host.units["system.slice"] = "0-6"
    isolation(host, tmp_path).adjust(HOST)
    again = isolation(host, tmp_path)
    again.adjust(HOST, anew=True)
    assert host.units["system.slice"] == "0-3"
    last = isolation(host, tmp_path)
    assert last.incomplete, "the guest has stopped meanwhile"
    last.adjust(HostIsolationPolicy(), anew=True)
    assert (host.units["system.slice"], last.incomplete) == ("0-6", False)


def test_what_systemd_does_not_tell_is_not_taken_for_gone(
    host: IsolatedHost, tmp_path: Path
) -> None:
    """On a busy machine systemctl took longer than a verify waits for it."""
    one = isolation(host, tmp_path)
    one.adjust(HOST)
    host.refuses = "systemctl did not end within 5 s"
    lines = said(one)
    text = f"{RECORD}: system.slice AllowedCPUs: not known: systemctl show: {host.refuses}"
    assert lines[text] is Result.NOTE
    assert not any("no longer exists" in line for line in lines)


def test_what_systemd_did_not_answer_is_asked_again(host: IsolatedHost, tmp_path: Path) -> None:
    one = isolation(host, tmp_path)
    host.refuses = "systemctl did not end within 5 s"
    one.adjust(HOST)
    assert one.incomplete
    host.refuses = ""
    one.adjust(HOST, one.incomplete)
    assert not one.incomplete
    assert set(host.units.values()) == {"0-3"}


def test_what_can_never_be_is_not_asked_again(host: IsolatedHost, tmp_path: Path) -> None:
    one = isolation(host, tmp_path)
    one.adjust(HostIsolationPolicy(frozenset(range(8))))
    assert not one.incomplete, "no CPU is left for the host"
    (host.folder / "sys/fs/cgroup/cgroup.controllers").unlink()
    one.adjust(HOST)
    assert not one.incomplete, "control groups version 1"


def test_what_systemd_does_after_nobody_waits_any_more_leaves_no_trace(
    host: IsolatedHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = isolation(host, tmp_path)
    one.adjust(HOST)

    def late(*words: str, seconds: float = 0) -> str:
        answer = host._systemctl(*words)
        if words[0] == "set-property":
            raise ToolError("systemctl: not done after 5 s")
        return answer

    monkeypatch.setattr(systemd, "systemctl", late)
    one.adjust(HostIsolationPolicy())
    assert one.incomplete
    monkeypatch.setattr(systemd, "systemctl", host._systemctl)
    one.adjust(HostIsolationPolicy(), one.incomplete)
    assert not one.incomplete
    assert host.text("sys/fs/cgroup/system.slice/cpuset.cpus") == ""
    assert not list((host.folder / DROP_INS).glob("*/*"))


def test_what_systemd_refuses_fails_verify_and_is_tried_again_on_the_way_back(
    host: IsolatedHost, tmp_path: Path
) -> None:
    one = isolation(host, tmp_path)
    host.refuses = "Failed to connect to bus"
    one.adjust(HOST)
    lines = said(one)
    text = f"{RECORD}: host tasks: systemctl show: Failed to connect to bus"
    assert lines[text] is Result.FAILED
    host.refuses = ""
    one.adjust(HOST, anew=True)
    assert host.units["init.scope"] == "0-3"
    host.refuses = "Failed to connect to bus"
    one.adjust(HostIsolationPolicy())
    assert one.incomplete
    host.refuses = ""
    one.adjust(HostIsolationPolicy(), anew=True)
    assert (host.units["init.scope"], one.incomplete) == ("", False)


def test_a_guest_that_nobody_has_pinned_is_kept_off_until_it_is_placed(
    host: IsolatedHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads_follow(host, monkeypatch)
    host.task(30, "qemu-system-x86", "0-7", "/machine.slice/web1")
    setting = "guest web1#30:20/affinity"
    one = isolation(host, tmp_path)
    one.adjust(HostIsolationPolicy(FOUR_TO_SEVEN, loose=(setting,)))
    status = "proc/30/task/30/status"
    assert host.text(status).endswith("0-3")
    one.spare({setting})
    assert host.text(status).endswith("0-7"), "what is kept when it is pinned is what it had"
    assert host.units["system.slice"] == "0-3", "all else stays"


def test_who_may_still_run_there_is_counted_and_named(host: IsolatedHost, tmp_path: Path) -> None:
    one = isolation(host, tmp_path)
    one.adjust(HOST)
    host.task(1, "systemd", "0-3", "/init.scope")
    host.task(40, "qemu-system-x86", "4", "/machine.slice/gaming")
    assert said(one, 40)[f"{RECORD}: no other task may run on CPUs 4-7"] is Result.PASSED
    host.task(41, "sshd", "0-7", "/system.slice/ssh.service")
    host.task(42, "ksoftirqd/4", "4", "/", 0x04200000)
    host.task(43, "kswapd0", "0-7", "/", 0x00200000)
    host.task(44, "pod", "0-7", "/kubepods.slice/pod")
    lines = said(one, 40)
    where = "may run on CPUs 4-7"
    assert lines[f"{RECORD}: 1 host tasks {where}: sshd"] is Result.FAILED
    bound = "kernel threads that belong to one CPU each and cannot be moved"
    assert lines[f"{RECORD}: 1 {bound} {where}: ksoftirqd/4"] is Result.NOTE
    assert lines[f"{RECORD}: 1 kernel threads {where}: kswapd0"] is Result.NOTE
    other = "tasks outside system.slice, user.slice and init.scope"
    assert lines[f"{RECORD}: 1 {other} {where}: pod"] is Result.NOTE


@pytest.mark.parametrize(
    ("path", "text", "why"),
    [
        ("run/systemd/system", None, "systemd does not run here"),
        ("sys/fs/cgroup/cgroup.controllers", None, "needs control groups version 2"),
        ("sys/fs/cgroup/cgroup.controllers", "cpu io", "no cpuset controller"),
    ],
)
def test_a_machine_that_cannot_says_why_and_isolates_the_rest(
    path: str, text: str | None, why: str, host: IsolatedHost, tmp_path: Path
) -> None:
    (host.folder / path).rename(host.folder / "elsewhere")
    if text:
        host.put(path, text)
    one = isolation(host, tmp_path)
    one.adjust(HOST)
    [line] = [text for text in said(one) if why in text]
    assert said(one)[line] is Result.FAILED
    assert host.text("sys/devices/virtual/workqueue/cpumask") == "f"
    assert {host.units[unit] for unit in UNITS} == {""}


def test_an_irqbalance_that_cannot_be_told_is_said(host: IsolatedHost, tmp_path: Path) -> None:
    host.task(50, "irqbalance", "0-3", "/system.slice/irqbalance.service")
    one = isolation(host, tmp_path, FakeIrqbalance(None))
    one.adjust(ALL)
    [line] = [text for text in said(one) if "does not answer" in text]
    assert said(one)[line] is Result.FAILED
    one.adjust(HOST)
    assert not [text for text in said(one) if "does not answer" in text], "none is to be moved"


def test_a_hook_that_releases_the_cpus_first_is_not_undone(
    host: IsolatedHost, tmp_path: Path
) -> None:
    """A hook for GPU passthrough beside us: its restriction is not what the host had before."""
    hook = ("set-property", "--runtime", "--", "system.slice")
    host._systemctl(*hook, "AllowedCPUs=0-1")
    one = isolation(host, tmp_path)
    one.adjust(HOST)
    host._systemctl(*hook, "AllowedCPUs=0-7")
    one.adjust(HostIsolationPolicy())
    assert host.units == {"system.slice": "0-7", "user.slice": "", "init.scope": ""}
    assert not one.incomplete
