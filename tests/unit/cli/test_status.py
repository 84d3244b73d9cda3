# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt status` and `status --ksm`, over a fake machine."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.kernel import FRESH
from tuned_virt import cli
from tuned_virt.cli import activation, daemon, ksm_report, ksm_table, status
from tuned_virt.cli.common import CouldNot
from tuned_virt.core.active_profile import ActiveProfile
from tuned_virt.core.originals import Originals
from tuned_virt.core.state_file import PLACEMENTS
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.running_guests import RunningGuestReader
from tuned_virt.model.guest.qemu_process import QemuProcess
from tuned_virt.placement import unplaced
from tuned_virt.plugins.ksm.controller_state import (
    ControllerState,
    ControllerStateFile,
    LoggedDecision,
)
from tuned_virt.plugins.ksm.decision import ControllerMemory, Phase
from tuned_virt.plugins.vm_pinning import held_placements
from tuned_virt.plugins.vm_pinning.held_placements import HeldPlacement

PAGES = 256
"""Pages of a MiB."""

TITLES = ["guest", "pid", "MiB", "mergeable", "MiB", "merged", "MiB", "profit", "MiB"]

ALGORITHM = "AutoPolicy(eager=0, max_cpu=None)"


class Host:
    """A machine in a folder; what is not put there, it does not have."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fs = KernelFS(root)
        self.state = root / "state"
        self.put("/sys/devices/system/node/node0/cpulist", "0-3")
        self.put("/sys/devices/system/node/node0/distance", "10")
        self.put("/proc/meminfo", "MemTotal: 4096 kB")
        namespace = root / "proc/self/ns/pid"
        namespace.parent.mkdir(parents=True)
        namespace.symlink_to("pid:[4026531836]")

    def put(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")

    def ksm(self, **more: str) -> None:
        zeros = ("full_scans", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
        for name, value in {**FRESH, **dict.fromkeys(zeros, "0"), **more}.items():
            self.put(f"/sys/kernel/mm/ksm/{name}", value)

    def guest(self, pid: int, command: str, stat: str = "") -> None:
        program = self.root / f"proc/{pid}/exe"
        self.put(f"/proc/{pid}/cmdline", command.replace(" ", "\0"))
        self.put(f"/proc/{pid}/statm", "1000 900 0 0")
        program.symlink_to("/usr/bin/qemu-system-x86_64")
        if stat:
            self.put(f"/proc/{pid}/ksm_stat", stat)

    def loop(self, why: str = "a full scan gained only 3 MiB", when: float | None = None) -> None:
        memory = ControllerMemory(Phase.MAINTENANCE, since=time.monotonic() - 5)
        changes = {"pages_to_scan": "1428", "sleep_millisecs": "990"}
        made = LoggedDecision(time.time() if when is None else when, "maintenance", why, changes)
        ControllerStateFile(self.state / "ksm.json").save(
            ControllerState(ALGORITHM, memory, (made,))
        )

    def hold(self) -> None:
        Originals(self.state).keep("ksm", {"run": "0"})


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)

    def gone(self: daemon.Daemon) -> None:
        raise daemon.NotRunning("TuneD is not running: systemctl start tuned")

    monkeypatch.setattr(daemon.Daemon, "__init__", gone)
    monkeypatch.setattr(status, "KernelFS", lambda: made.fs)
    monkeypatch.setattr(status, "Originals", lambda: Originals(made.state))
    monkeypatch.setattr(ksm_report, "Originals", lambda: Originals(made.state))
    monkeypatch.setattr(ksm_report, "STATE_FOLDER", made.state)
    monkeypatch.setattr(ksm_table, "ask_libvirt", lambda: ({}, ""))
    monkeypatch.setattr(status, "FOLDER", str(made.state))
    return made


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    cli.main(["status", *arguments])
    return capsys.readouterr().out


def known(name: str, mib: int, shares_pages: bool = True, uuid: str = "") -> Any:
    return SimpleNamespace(uuid=uuid, name=name, memory=mib * 1024, shares_pages=shares_pages)


def process(pid: int, uuid: str = "", name: str = "", shares_pages: bool = True) -> QemuProcess:
    return QemuProcess(pid, uuid, name, shares_pages, 0)


def reader(files: Mapping[str, str]) -> Any:
    return files.get


STAT = f"""ksm_rmap_items {700 * PAGES}
ksm_zero_pages {10 * PAGES}
ksm_merging_pages {400 * PAGES}
ksm_process_profit {401 * 2**20}
ksm_merge_any: no"""


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuned_virt.model.topology.page_size", lambda: 4096)


def test_rows_join_processes_libvirt_and_the_kernel() -> None:
    processes = [process(30, "u1", "from -name"), process(20, name="by hand"), process(10)]
    libvirt = {"u1": known("web\n1", 2048), "u2": known("elsewhere", 512, uuid="u2")}
    found = ksm_table.rows(processes, libvirt, reader({"/proc/30/ksm_stat": STAT}))
    assert found == [
        ksm_table.KsmRow("10", "", 10, None, False),
        ksm_table.KsmRow("by hand", "", 20, None, False),
        ksm_table.KsmRow("elsewhere", "u2", None, 512, False),
        ksm_table.KsmRow("web?1", "u1", 30, 2048, False, 700.0, 410.0, 401.0),
    ]


def test_guests_that_opt_out_by_xml_or_command_line_have_no_figures() -> None:
    files = {"/proc/1/ksm_stat": STAT, "/proc/2/ksm_stat": STAT}
    processes = [process(1, shares_pages=False), process(2, "u2")]
    found = ksm_table.rows(processes, {"u2": known("b", 1, shares_pages=False)}, reader(files))
    assert [(row.opted_out, row.mergeable_mib) for row in found] == [(True, None), (True, None)]


@pytest.mark.parametrize(
    ("files", "sizes"),
    [
        ({}, (None, None, None)),
        ({"/proc/7/ksm_merging_pages": f"{3 * PAGES}"}, (None, 3.0, None)),
        (
            {"/proc/7/ksm_stat": f"ksm_rmap_items {PAGES}", "/proc/7/ksm_merging_pages": "0"},
            (1.0, 0.0, None),
        ),
        (
            {"/proc/7/ksm_stat": "ksm_merging_pages 0\nksm_process_profit -1048576"},
            (None, 0.0, -1.0),
        ),
    ],
)
def test_old_kernels_tell_less(files: dict[str, str], sizes: object) -> None:
    assert ksm_table.sizes_of(7, reader(files)) == sizes


def test_status_shows_the_guests(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.ksm()
    host.guest(41, "qemu -name guest=one,debug-threads=on -uuid u1", STAT)
    host.guest(42, "qemu -name [red]two -machine pc,mem-merge=off", STAT)
    monkeypatch.setattr(ksm_table, "ask_libvirt", lambda: ({"u1": known("web", 1024)}, ""))
    shown = [line.split() for line in output(capsys).splitlines()]
    assert TITLES in shown
    assert ["web", "41", "1024", "700.0", "410.0", "401.0"] in shown
    assert ["[red]two", "42", "-", "opted", "out", "-", "-"] in shown
    content = json.loads(output(capsys, "--json"))
    assert [guest["guest"] for guest in content["guests"]] == ["[red]two", "web"]
    assert content["guests"][1]["mergeable_mib"] == 700.0


def test_without_guests_libvirt_is_not_asked(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ksm_table, "ask_libvirt", lambda: pytest.fail("asked"))
    assert "guest" not in output(capsys)
    assert json.loads(output(capsys, "--json"))["guests"] == []


@pytest.mark.parametrize(
    ("found", "lacking", "expected"),
    [
        (None, "no socket", ({}, "")),
        (None, "", ({}, ksm_table.SILENT)),
        ({"u": 1}, "", ({"u": 1}, "")),
    ],
)
def test_a_libvirt_that_hangs_is_said(
    found: Any, lacking: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunningGuestReader, "once", lambda self: found)
    monkeypatch.setattr(binding, "missing", lambda: lacking)
    assert ksm_table.ask_libvirt() == expected


def test_a_remark_on_libvirt_is_shown(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.guest(41, "qemu -name one")
    monkeypatch.setattr(ksm_table, "ask_libvirt", lambda: ({}, ksm_table.SILENT))
    assert f"guests    {ksm_table.SILENT}" in output(capsys)


def test_the_loop_is_shown_with_its_last_reason(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.ksm(run="1", pages_to_scan="1428", sleep_millisecs="990", pages_sharing=str(8 * PAGES))
    host.loop()
    host.hold()
    decided = ControllerStateFile(host.state / "ksm.json").load().decisions[0].when
    clock = time.strftime("%H:%M:%S", time.localtime(decided))
    assert (
        "KSM       maintenance, 8.0 MiB saved, 1428 pages every 990 ms, merges across NUMA nodes;"
        f" a full scan gained only 3 MiB ({clock})\n"
    ) in output(capsys)
    content = json.loads(output(capsys, "--json"))["loop"]
    assert content["mode"] == "auto"
    assert content["held"] is True
    since = datetime.fromisoformat(content["since"])
    assert since.tzinfo is not None
    assert abs(since.timestamp() - (time.time() - 5)) < 2
    assert datetime.fromisoformat(content["when"]).timestamp() == pytest.approx(decided, abs=0.001)


def test_a_loop_whose_daemon_is_gone_is_said(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.ksm()
    host.loop()
    assert "left by a TuneD that has ended; to restore: sudo tuned-virt restore\n" in output(capsys)
    assert "left by a TuneD that has ended" in output(capsys, "--ksm")


def test_no_loop_and_no_ksm(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert "KSM       not in this kernel\n" in output(capsys)
    assert cli.main(["status", "--ksm"]) == 0
    assert capsys.readouterr().out == "KSM       not in this kernel\n"
    assert json.loads(output(capsys, "--ksm", "--json"))["ksm"] is None
    host.ksm()
    assert "KSM       stopped, 0.0 MiB saved" in output(capsys)
    assert "loop      none" in output(capsys, "--ksm")


def test_ksm_in_full(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"pages_sharing": 8 * PAGES, "ksm_zero_pages": PAGES, "general_profit": -(2**20)}
    host.ksm(
        run="1",
        advisor_mode="none [scan-time]",
        something_new="7",
        **{name: str(value) for name, value in figures.items()},
    )
    host.put("/proc/66/comm", "ksmd")
    host.put("/proc/66/cmdline", "")
    host.put("/proc/66/schedstat", "12340000000 0 0")
    host.put("/etc/systemd/system/ksmtuned.service", "")
    (host.root / "etc/systemd/system/ksm.service").symlink_to("/dev/null")
    host.put("/proc/77/comm", "momd")
    host.put("/proc/78/comm", "java")
    host.put("/proc/78/ksm_stat", STAT.replace("any: no", "any: yes"))
    host.put("/proc/79/comm", "idle")
    host.put("/proc/79/ksm_stat", "ksm_merging_pages 0\nksm_merge_any: no")
    monkeypatch.setattr("tuned_virt.plugins.ksm.conflicts.state", lambda unit: "active")
    host.loop("memory is short", when=1_000_000_000)
    host.hold()
    assert cli.main(["status", "--ksm"]) == 0
    shown = capsys.readouterr().out
    by_name = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line}
    assert by_name["advisor_mode"][0] == "scan-time"
    assert by_name["something_new"] == ["7", "(new", "in", "this", "kernel)"]
    assert "saved     9.0 MiB: pages_sharing and ksm_zero_pages\n" in shown
    assert "profit    -1.0 MiB: the kernel's estimate, less its own memory use; negative" in shown
    assert "cost      ksmd has used 12.3 s of CPU since boot\n" in shown
    assert "ksmtuned.service active, ksm.service masked, MOM (process momd, 77) controls" in shown
    assert "loop      mode=auto: maintenance since " in shown
    assert "  maintenance: memory is short (pages_to_scan=1428, sleep_millisecs=990)\n" in shown
    assert "\n  2001-09-" in shown
    content = json.loads(output(capsys, "--ksm", "--json"))["ksm"]
    assert content["saved_mib"] == 9.0
    assert content["ksmd_cpu_seconds"] == 12.34
    assert content["conflicts"]["masked"] == ["ksm.service"]
    service = {"process": "java", "pid": 78, "whole": True}
    assert content["processes"] == [{**service, "merged_mib": 410.0, "profit_mib": 401.0}]
    text = "java (78), no guest: all its memory (MemoryKSM=): 410.0 MiB merged, profit 401.0 MiB"
    assert f"process   {text}\n" in shown
    assert content["variables"][0] == {
        "name": "full_scans",
        "value": "0",
        "meaning": "times that all mergeable memory was scanned",
    }


@pytest.mark.parametrize(
    ("then", "line", "content"),
    [
        (
            (ActiveProfile(("virtual-host", "site")), []),
            "return    tuned-virt disable returns to virtual-host site\n",
            {"profiles": ["virtual-host", "site"], "mode": "manual", "notes": []},
        ),
        (
            (ActiveProfile(("site",), automatic=True), []),
            "return    tuned-virt disable returns to the profile that TuneD chooses, site\n",
            {"profiles": ["site"], "mode": "auto", "notes": []},
        ),
        (
            (ActiveProfile(automatic=True), []),
            "return    tuned-virt disable returns to the profile that TuneD chooses\n",
            {"profiles": [], "mode": "auto", "notes": []},
        ),
        (
            (ActiveProfile(), ["it is not known"]),
            "return    tuned-virt disable returns to no profile; it is not known\n",
            {"profiles": [], "mode": "manual", "notes": ["it is not known"]},
        ),
        (None, "", None),
    ],
)
def test_how_to_return(
    then: Any,
    line: str,
    content: Any,
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(activation, "disabling", lambda names: then)
    found = [text for text in output(capsys).splitlines(True) if text.startswith("return")]
    assert "".join(found) == line
    assert json.loads(output(capsys, "--json"))["returns_to"] == content


def test_an_old_kernel_in_a_container(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("run", "pages_to_scan", "sleep_millisecs", "pages_sharing")
    for name in names:
        host.put(f"/sys/kernel/mm/ksm/{name}", "0")
    shown = output(capsys, "--ksm")
    assert "profit " not in shown
    assert "cost      unknown: the ksmd thread is not visible here" in shown
    assert "services  no conflicting service" in shown
    assert [
        v["name"] for v in json.loads(output(capsys, "--ksm", "--json"))["ksm"]["variables"]
    ] == [
        "pages_sharing",
        "pages_to_scan",
        "run",
        "sleep_millisecs",
    ]


def test_every_variable_of_chapter_8_4_3_has_a_meaning() -> None:
    assert list(ksm_report.MEANINGS)[:9] == [
        "full_scans",
        "merge_across_nodes",
        "pages_shared",
        "pages_sharing",
        "pages_to_scan",
        "pages_unshared",
        "pages_volatile",
        "run",
        "sleep_millisecs",
    ]
    assert FRESH.keys() <= ksm_report.MEANINGS.keys()


# --- what could not be checked, and what was not granted ------------------------------------------


def running(monkeypatch: pytest.MonkeyPatch, verify: Any) -> None:
    """A TuneD with an active profile, and what its verify does."""
    monkeypatch.setattr(daemon.Daemon, "__init__", lambda self: None)
    monkeypatch.setattr(daemon.Daemon, "active_profile", lambda self: "virtual-host-plus")
    monkeypatch.setattr(daemon.Daemon, "verify", verify)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (daemon.NotPermitted("only root"), "run as root to verify"),
        (CouldNot("TuneD's verify: no"), "could not be verified: TuneD's verify: no"),
    ],
)
def test_what_could_not_be_checked_is_exit_2_and_no_difference(
    error: Exception,
    said: str,
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(self: daemon.Daemon, ignore_missing: bool) -> None:
        raise error

    running(monkeypatch, fails)
    assert cli.main(["status"]) == 2
    shown = capsys.readouterr().out
    assert f"profile   virtual-host-plus ({said})\n" in shown
    assert "not verified" not in shown
    assert "differs" not in shown
    assert cli.main(["status", "--json"]) == 2
    content = json.loads(capsys.readouterr().out)
    assert (content["verified"], content["unverified"]) == (None, said)


def test_a_guest_without_what_was_asked_for_is_shown_and_is_exit_1(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    placed = unplaced("db", "u", "no node has 4 free CPUs", ungranted="policy=dedicated")
    held = HeldPlacement("u/1", "u", "db", "db", 7, placed)
    seen = {"qemu:///system": [held, replace(held, observed=True)]}
    running(monkeypatch, lambda self, ignore_missing: (True, []))
    assert cli.main(["status"]) == 0
    capsys.readouterr()
    assert json.loads(output(capsys, "--json"))["ungranted"] == []
    monkeypatch.setattr(held_placements, "everything", lambda: seen)
    host.state.mkdir(exist_ok=True)
    (host.state / PLACEMENTS).touch()
    assert cli.main(["status"]) == 1
    said = "guest     db: policy=dedicated is not granted: no node has 4 free CPUs\n"
    assert capsys.readouterr().out.count(said) == 1
    assert json.loads(output(capsys, "--json"))["ungranted"] == [
        {"guest": "db", "uuid": "u", "asked": "policy=dedicated", "why": "no node has 4 free CPUs"}
    ]
