# SPDX-License-Identifier: GPL-2.0-or-later
"""Symbols of a guest's kernel: which serve, how each source is read, and where they are kept."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuned_virt.cli import perf_symbols
from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.guest_rows import SeenGuest
from tuned_virt.cli.perf_symbols import GuestSymbols, both, fault, ssh_command
from tuned_virt.libvirt_api import guest_agent
from tuned_virt.libvirt_api.guest_agent import AgentError
from tuned_virt.model.guest.qemu_process import QemuProcess

KALLSYMS = b"""0000000000000000 A fixed_percpu_data
0000000000001000 A irq_stack_backing_store
ffffffff9ae00000 T startup_64
ffffffff9ae00000 T _stext
ffffffff9ae00000 T _text
ffffffffc0a1d000 t nft_register\t[nf_tables]
ffffffffc0b00000 t bpf_prog_6deef7357e7b4530\t[bpf]
"""
BUILT_IN = b"".join(line for line in KALLSYMS.splitlines(True) if b"[nf_tables]" not in line)
MODULES = b"""nf_tables 278528 120 nft_ct,nft_chain_nat, Live 0xffffffffc0a1d000
zfs 3768320 6 - Live 0xffffffffc1200000 (PO)
"""


def hidden(text: bytes) -> bytes:
    """As the kernel shows it to who may not see addresses."""
    words = [line.split(b" ", 1) for line in text.splitlines(True)]
    return b"".join(b"0" * 16 + b" " + rest for _, rest in words)


@pytest.mark.parametrize(
    ("kallsyms", "modules", "why"),
    [
        (KALLSYMS, MODULES, ""),
        (BUILT_IN, b"", ""),
        (b"", b"", "/proc/kallsyms is empty"),
        (KALLSYMS, b"", "names the module nf_tables: it was copied by its size"),
        (hidden(KALLSYMS), MODULES, "kernel.kptr_restrict is 2"),
        (b"\x7fELF\x02\x01\x01" + bytes(64), b"", "does not have lines of address, type and name"),
        (b"<html>Login</html>", MODULES, "does not have lines of address"),
        (b"0000000000201000 T start\n", b"", "has neither _text nor _stext"),
        (b"0000000000201000 T _text\n0000000000201000 T _stext\n", b"", ""),
        (KALLSYMS, b"Welcome to web1!\n" + MODULES, "/proc/modules does not have lines"),
        (KALLSYMS, MODULES.rstrip(b"\n")[:-3], "/proc/modules does not have lines"),
        (KALLSYMS, b"zfs 3768320 6 - Live 0x0000000000000000 (PO)\n", "modules are zero"),
        (b"c0100000 T _text\nc0100000 T _stext\n", b"", ""),
    ],
    ids=[
        "usual",
        "everything built in",
        "scp: size 0 (guide 2.2)",
        "sshfs without direct_io (perf-intel-pt)",
        "kptr_restrict",
        "an ELF file (ix#35)",
        "not the file",
        "a unikernel (osv#361: perf segfaults)",
        "osv's remedy",
        "a login that greets",
        "cut short",
        "hidden addresses of modules",
        "32 bits",
    ],
)
def test_what_perf_would_not_say(kallsyms: bytes, modules: bytes, why: str) -> None:
    found = fault(GuestSymbols(kallsyms, modules))
    assert why in found
    assert bool(found) is bool(why)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes_are_judged(kallsyms: bytes, modules: bytes) -> None:
    fault(GuestSymbols(kallsyms, modules))
    fault(GuestSymbols(KALLSYMS, modules))


@pytest.mark.parametrize("modules", [MODULES, b""])
def test_both_files_of_one_login(modules: bytes) -> None:
    assert both(modules + b"\n" + KALLSYMS) == GuestSymbols(KALLSYMS, modules)


@pytest.mark.parametrize(
    "host", ["web1", "root@web1.example.org", "root@2001:db8::1", "ssh://root@[::1]:2222", "a_b@c"]
)
def test_hosts_of_ssh(host: str) -> None:
    assert ssh_command(host)[1:4] == ["-T", "--", host]


@pytest.mark.parametrize(
    "host",
    ["", "-oProxyCommand=id", "root@-oProxyCommand=id", "a b", "a;id", "$(id)", "a\nb", "@a"],
)
def test_what_is_not_a_host(host: str) -> None:
    with pytest.raises(CouldNot, match=r"--ssh .*: \[USER@\]HOST or ssh:.* is valid"):
        ssh_command(host)


# --- sources --------------------------------------------------------------------------------------


def program(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of that name, before all others."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_by_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").write_bytes(MODULES + b"\n" + KALLSYMS)
    script = f'[ "$*" = "-T -- root@web1 {perf_symbols.REMOTE}" ] && cat {tmp_path}/text'
    program(tmp_path, "ssh", script, monkeypatch)
    assert perf_symbols.over_ssh("root@web1") == GuestSymbols(KALLSYMS, MODULES)


@pytest.mark.large
@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 255", "cannot be read: ssh's exit code is 255"),
        ("exec sleep 60", "cannot be read: not done after 0.5 s"),
        ("exec yes", "the guest's files are larger than 68157440 bytes"),
    ],
)
def test_ssh_that_fails(
    script: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "ssh", script, monkeypatch)
    monkeypatch.setattr(perf_symbols, "SSH_PATIENCE", 30.0 if "yes" in script else 0.5)
    with pytest.raises(CouldNot) as refused:
        perf_symbols.over_ssh("web1")
    assert str(refused.value).endswith(why)


def test_without_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CouldNot, match="ssh: No such file"):
        perf_symbols.over_ssh("web1")


def test_from_a_mounted_root(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    assert perf_symbols.from_root(str(tmp_path)) == GuestSymbols(b"", b"")
    (tmp_path / "proc/kallsyms").write_bytes(KALLSYMS)
    (tmp_path / "proc/modules").write_bytes(MODULES)
    assert perf_symbols.from_root(str(tmp_path)) == GuestSymbols(KALLSYMS, MODULES)
    (tmp_path / "proc/modules").write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(CouldNot, match="proc/modules is larger than 1048576 bytes"):
        perf_symbols.from_root(str(tmp_path))


def guest(by_libvirt: bool = True) -> SeenGuest:
    return SeenGuest(QemuProcess(42, "uuid1", "web1", True, 0, by_libvirt), None, "", {})


def test_by_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    files: dict[str, bytes | None] = {"/proc/kallsyms": KALLSYMS, "/proc/modules": None}
    monkeypatch.setattr(guest_agent, "read_files", lambda uuid, most, uri: files)
    assert perf_symbols.by_agent(guest()) == GuestSymbols(KALLSYMS, b"")
    files["/proc/kallsyms"] = None
    with pytest.raises(CouldNot, match="no /proc/kallsyms: its kernel is not Linux"):
        perf_symbols.by_agent(guest())


def test_an_agent_that_refuses_and_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AgentError("QEMU guest agent is not connected")

    monkeypatch.setattr(guest_agent, "read_files", refuse)
    with pytest.raises(CouldNot, match=r"agent is not connected; --ssh \[USER@\]HOST logs into"):
        perf_symbols.by_agent(guest())
    with pytest.raises(CouldNot, match="libvirt has not started this guest"):
        perf_symbols.by_agent(guest(by_libvirt=False))


# --- folders --------------------------------------------------------------------------------------


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_private_folder_is_deleted() -> None:
    with perf_symbols.folder(None) as made:
        perf_symbols.write(made, GuestSymbols(KALLSYMS, MODULES))
        perf_symbols.link_root(made, 42, "/")
        assert mode(made) == 0o700
        assert {mode(f"{made}/{name}") for name in ("kallsyms", "modules")} == {0o600}
        assert perf_symbols.kept(made) == GuestSymbols(KALLSYMS, MODULES)
    assert not os.path.exists(made)
    assert os.path.exists("/")


def test_what_is_kept_is_private_and_never_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with perf_symbols.folder(str(folder)) as made:
        perf_symbols.write(made, GuestSymbols(KALLSYMS, MODULES))
    assert mode(str(folder)) == 0o700
    with (
        perf_symbols.folder(str(folder)) as made,
        pytest.raises(CouldNot, match="kallsyms exists: --symbols uses it"),
    ):
        perf_symbols.write(made, GuestSymbols(b"", b""))
    assert perf_symbols.kept(str(folder)).kallsyms == KALLSYMS


def test_folders_that_are_not_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "shared").mkdir(mode=0o700)
    (tmp_path / "shared").chmod(0o777)
    (tmp_path / "link").symlink_to("shared")
    for name, why in [
        ("file", "not a folder"),
        ("link", "not a folder"),
        ("shared", "others may write to this folder"),
        ("none/below", "No such file or directory"),
    ]:
        keep = str(tmp_path / name)
        with pytest.raises(CouldNot, match=f"--keep {keep}: {why}"), perf_symbols.folder(keep):
            pass
    with pytest.raises(CouldNot, match=f"--symbols {tmp_path}: there is no file kallsyms"):
        perf_symbols.kept(str(tmp_path))


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "kallsyms").symlink_to(tmp_path / "victim")
    with pytest.raises(CouldNot, match="exists"):
        perf_symbols.write(str(tmp_path), GuestSymbols(KALLSYMS, MODULES))
    assert not (tmp_path / "victim").exists()
