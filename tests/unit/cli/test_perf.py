# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt perf from its command line to perf's, with a perf that says what it was given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.cli.test_perf_symbols import KALLSYMS, MODULES, program
from tests.unit.proc_guests import FakeProc
from tuned_virt import cli
from tuned_virt.cli import perf, perf_host
from tuned_virt.libvirt_api import guest_agent, guest_configurations
from tuned_virt.libvirt_api.guest_agent import AgentError
from tuned_virt.plugins.vm_pinning import held_placements

NAME = "web;touch /tmp/owned $(id)"
"""A guest may have any name."""

TELLS = """
for word in "$@"; do
    case $word in
        --guestkallsyms=*) ls -ld "$(dirname "${word#*=}")" | cut -c1-10
                           wc -l <"${word#*=}" ;;
        --guestmount=*) readlink "${word#*=}"/* ;;
    esac
    echo "$word"
done
"""


@pytest.fixture
def fs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeProc:
    """A host with all that perf needs, and one guest with an agent."""
    made = FakeProc(tmp_path)
    made.guest(100, NAME, {0: "0"}, uuid="uuid1")
    made.put("/proc/100/cmdline", f"qemu\0-name\0guest={NAME}\0-uuid\0uuid1\0/libvirt/qemu/\0")
    made.put("/sys/kernel/tracing/events/kvm/enable", "0")
    made.put(f"{perf_host.COUNTERS}/cpu/type", "4")
    (tmp_path / "proc/100/fd").mkdir()
    (tmp_path / "proc/100/fd/9").symlink_to("anon_inode:kvm-vm")
    monkeypatch.setattr(perf, "KernelFS", lambda: made)
    monkeypatch.setattr(held_placements, "everything", dict)
    files = {"/proc/kallsyms": KALLSYMS, "/proc/modules": MODULES}
    monkeypatch.setattr(guest_agent, "read_files", lambda *_: files)
    monkeypatch.setattr(guest_configurations, "stopped", lambda: frozenset({"off1"}))
    program(tmp_path, "perf", TELLS, monkeypatch)
    return made


def test_record(fs: FakeProc, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["perf", NAME, "record", "--", "-g", "sleep", "1"]) == 0
    told, said = capfd.readouterr()
    words = told.splitlines()
    assert words[:5] == ["kvm", "--host", "--guest", "drwx------", "7"]
    assert words[6].startswith("--guestmodules=")
    assert words[7:] == ["record", "--pid", "100", "-g", "sleep", "1"]
    folder = os.path.dirname(words[5].partition("=")[2])
    assert not os.path.exists(folder), "nothing of the guest is left"
    assert "fetched again" in said
    assert "owned" not in told


@pytest.mark.parametrize("name", [NAME, "uuid1", "100"])
def test_keep_and_report_later(
    name: str, fs: FakeProc, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    keep = tmp_path / "kept"
    assert cli.main(["perf", name, "record", "--keep", str(keep)]) == 0
    assert capfd.readouterr().err == ""
    assert cli.main(["perf", "gone", "report", "--symbols", str(keep), "--", "--stdio"]) == 0
    assert capfd.readouterr().out.splitlines()[-2:] == ["report", "--stdio"]


def test_print_with_and_without_files(
    fs: FakeProc, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["perf", NAME, "top", "--print"]) == 0
    line = "perf kvm --host --guest --guestkallsyms={0}/kallsyms --guestmodules={0}/modules top"
    assert capfd.readouterr().out == f"{line.format('FOLDER')} --pid 100\n"
    keep = tmp_path / "kept"
    assert cli.main(["perf", NAME, "top", "--print", "--keep", str(keep)]) == 0
    assert capfd.readouterr() == (f"{line.format(keep)} --pid 100\n", "")
    assert (keep / "kallsyms").read_bytes() == KALLSYMS


def test_print_says_what_is_missing(fs: FakeProc, capfd: pytest.CaptureFixture[str]) -> None:
    (Path(fs.root) / "proc/100/fd/9").unlink()
    (Path(fs.root) / "proc/100/fd/9").symlink_to("/dev/null")
    assert cli.main(["perf", NAME, "stat", "--print"]) == 1
    told, said = capfd.readouterr()
    assert told == "perf kvm stat live --pid 100\n"
    assert said.startswith("tuned-virt: the guest runs in TCG, without KVM")
    assert cli.main(["perf", NAME, "stat"]) == 2


def test_a_mounted_root(fs: FakeProc, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    (root / "proc").mkdir(parents=True)
    (root / "proc/kallsyms").touch()
    assert cli.main(["perf", NAME, "record", "--guestmount", str(root)]) == 2
    assert capfd.readouterr().err.endswith("is 0; mount it with: sshfs -o direct_io\n")
    (root / "proc/kallsyms").write_bytes(KALLSYMS)
    (root / "proc/modules").write_bytes(MODULES)
    assert cli.main(["perf", NAME, "record", "--guestmount", str(root)]) == 0
    told = capfd.readouterr().out.splitlines()
    assert told[3] == str(root)
    assert told[4].startswith("--guestmount=")


def test_by_ssh_a_report_needs_no_process(
    fs: FakeProc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_bytes(MODULES + b"\n" + KALLSYMS)
    program(tmp_path, "ssh", f"cat {tmp_path}/text", monkeypatch)
    assert cli.main(["perf", "anything", "report", "--ssh", "root@web1"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "report"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["off1", "top"], "guest off1 is not running"),
        (["web2", "top"], "no running guest is named 'web2'"),
        (["uuid1", "stat", "--keep", "/x"], "stat uses no symbols of the guest: --keep is for"),
        (["uuid1", "top", "--symbols", "/x", "--keep", "/y"], "with --symbols nothing is"),
        (["uuid1", "top", "--symbols", "/none"], "--symbols /none: there is no file kallsyms"),
        (["uuid1", "top", "--ssh", "-v"], "expected one argument"),
        (["uuid1", "watch"], "invalid choice: 'watch'"),
    ],
)
def test_one_clear_error(
    arguments: list[str], why: str, fs: FakeProc, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        assert cli.main(["perf", *arguments]) == 2
    except SystemExit as ended:
        assert ended.code == 2
    assert why in capfd.readouterr().err


def test_an_agent_that_is_not_there(
    fs: FakeProc, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise AgentError("argument unsupported: QEMU guest agent is not configured")

    monkeypatch.setattr(guest_agent, "read_files", refuse)
    assert cli.main(["perf", NAME, "top"]) == 2
    assert "agent is not configured; --ssh [USER@]HOST logs" in capfd.readouterr().err


def test_symbols_that_do_not_serve_are_refused(
    fs: FakeProc, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    files = {"/proc/kallsyms": b"0000000000000000 T _text\n", "/proc/modules": b""}
    monkeypatch.setattr(guest_agent, "read_files", lambda *_: files)
    assert cli.main(["perf", NAME, "top"]) == 2
    told, said = capfd.readouterr()
    assert "kernel.kptr_restrict is 2" in said
    assert told == "", "perf is not run"


@pytest.mark.parametrize(("code", "status"), [(0, 0), (130, 0), (1, 2), (129, 2)])
def test_perfs_own_end(
    code: int, status: int, fs: FakeProc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "perf", f"exit {code}", monkeypatch)
    assert cli.main(["perf", NAME, "stat-record"]) == (2 if code else 0)
    monkeypatch.setattr(perf_host, "run_program", lambda *_, seconds: "")
    assert cli.main(["perf", NAME, "stat-record"]) == status


WAITS = """
import os, sys
from tuned_virt import cli
from tuned_virt.cli import perf, perf_host
perf_host.obstacles = lambda *_: []
perf._guest = lambda *_: None
perf._needs_guest = lambda *_: False
sys.exit(cli.main(["perf", "x", "top", "--ssh", "x"]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_behind(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").write_bytes(b"\n" + KALLSYMS.replace(b"\t[nf_tables]", b""))
    program(tmp_path, "ssh", f"cat {tmp_path}/text", monkeypatch)
    script = f"echo $$ >{tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 60"
    program(tmp_path, "perf", script, monkeypatch)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    command = ["env", "--default-signal=HUP", sys.executable, "-c", WAITS]  # nohup ignores it
    with subprocess.Popen(command, cwd=Path(cli.__file__).parents[2]) as ours:
        until = time.monotonic() + 30
        while not (tmp_path / "pid").exists() and time.monotonic() < until:
            time.sleep(0.02)
        assert len(os.listdir(tmp_path / "tmp")) == 1
        ours.send_signal(number)
        assert ours.wait(timeout=30) == 128 + number
    assert os.listdir(tmp_path / "tmp") == []
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
