# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt perf against a real libvirtd, a real kernel in a guest, and QEMU's own guest agent.

The guest runs in TCG, so perf itself has nothing to sample: what is fetched, refused and printed is
tried here; that perf takes the files is tried on the host's own kernel.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from tests import agent_guest
from tests.libvirtd import Libvirtd
from tests.sandbox import wait_for
from tuned_virt import cli
from tuned_virt.cli import perf_symbols

NAME = "web; touch owned; $(id)"
BOOTS = 180.0
"""Seconds for an emulated kernel to start its agent on a busy machine."""


@pytest.fixture(scope="module")
def libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    """Three guests: one as delivered, one whose agent reads no files, one that hides addresses."""
    initrd = agent_guest.initramfs(tmp_path_factory.mktemp("initramfs") / "initrd")
    with Libvirtd() as started:
        with started.connection() as connection:
            for name, arguments in (
                (NAME, ""),
                ("blocked", "agent.block=guest-file-open,guest-file-read"),
                ("hidden", "agent.hide=1"),
            ):
                connection.createXML(agent_guest.domain(name, initrd, arguments))
            for name in (NAME, "blocked", "hidden"):
                domain = connection.lookupByName(name)
                wait_for(f"the agent of {name}", lambda: _answers(domain), seconds=BOOTS)  # noqa: B023
        yield started


def _answers(domain: libvirt.virDomain) -> bool:
    try:
        libvirt_qemu.qemuAgentCommand(domain, '{"execute": "guest-ping"}', 5, 0)
    except libvirt.libvirtError:
        return False
    return True


def _md5(domain: libvirt.virDomain, file: str) -> str:
    """As the guest's own md5sum prints it."""

    def ask(command: str, **arguments: object) -> Any:
        asked = json.dumps({"execute": command, "arguments": arguments})
        return json.loads(libvirt_qemu.qemuAgentCommand(domain, asked, 10, 0))["return"]

    run = {"path": "/bin/md5sum", "arg": [file], "capture-output": True}
    pid = ask("guest-exec", **run)["pid"]
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(ask("guest-exec-status", pid=pid))  # which forgets it once it has ended
        return bool(found["exited"])

    wait_for("md5sum", ended)
    return base64.b64decode(found["out-data"]).decode().split()[0]


@pytest.fixture(autouse=True)
def of_this_libvirt(libvirtd: Libvirtd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_symbols, "SYSTEM", libvirtd.uri)


def test_the_kernels_files_as_they_are_in_the_guest(
    libvirtd: Libvirtd, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    keep = tmp_path / "kept"
    assert cli.main(["perf", NAME, "record", "--print", "--keep", str(keep)]) == 1
    told, said = capfd.readouterr()
    assert "tuned-virt: the guest runs in TCG, without KVM" in said
    pid = libvirtd.guest_pid(NAME)
    assert shlex.split(told) == [
        *("perf", "kvm", "--host", "--guest", f"--guestkallsyms={keep}/kallsyms"),
        *(f"--guestmodules={keep}/modules", "record", "--pid", str(pid)),
    ]
    kallsyms = (keep / "kallsyms").read_bytes()
    assert len(kallsyms) * 4 / 3 > 4 << 20, "more than libvirt passes on at once"
    with libvirtd.connection() as connection:
        domain = connection.lookupByName(NAME)
        assert hashlib.md5(kallsyms).hexdigest() == _md5(domain, "/proc/kallsyms")
    modules = (keep / "modules").read_text()
    names = {name.rpartition("/")[2] for name in agent_guest.MODULES}
    assert {line.split()[0] for line in modules.splitlines()} == names
    assert re.search(rb"^[0-9a-f]{16} T _text$", kallsyms, re.MULTILINE)
    assert b"\t[virtio_console]\n" in kallsyms
    assert not Path("owned").exists()


def test_the_guest_is_in_tcg_so_perf_is_not_run(capfd: pytest.CaptureFixture[str]) -> None:
    for action in ("record", "top", "stat", "stat-record"):
        assert cli.main(["perf", NAME, action]) == 2
        assert "without KVM" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("blocked", "these commands disabled: guest-file-open, guest-file-read; --ssh"),
        ("hidden", "all addresses in /proc/kallsyms are zero: the guest hides them"),
        ("nobody", "no running guest is named 'nobody'"),
    ],
)
def test_what_is_said_of_guests_that_do_not_tell(
    name: str, why: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["perf", name, "record", "--print", "--keep", str(tmp_path / "k")]) == 2
    assert why in capfd.readouterr().err


def test_a_guest_without_an_agent(
    libvirtd: Libvirtd, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    libvirtd.start_guest("bare")
    assert cli.main(["perf", "bare", "top", "--print", "--keep", str(tmp_path / "k")]) == 2
    assert "QEMU guest agent is not configured" in capfd.readouterr().err


@pytest.mark.skipif(not shutil.which("perf"), reason="perf is not installed")
@pytest.mark.parametrize("action", ["record", "stat-record"])
def test_perf_takes_what_is_printed(
    action: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For a process of this host in the guest's place."""
    keep = tmp_path / "kept"
    files = () if action == "stat-record" else ("--keep", str(keep))
    cli.main(["perf", NAME, action, "--print", *files, "--", "sleep", "0.2"])
    command = shlex.split(capfd.readouterr().out)
    command[command.index("--pid") + 1] = str(os.getpid())
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Couldn't record guest kernel" not in done.stderr
    assert list(tmp_path.glob("perf.data.*"))
    if action == "record":
        report = ["report", "--symbols", str(keep), "--", "--stdio"]
        monkeypatch.chdir(tmp_path)
        assert cli.main(["perf", NAME, *report]) in (0, 2)
        assert "unrecognized" not in capfd.readouterr().err
