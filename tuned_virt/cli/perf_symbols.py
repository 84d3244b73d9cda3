# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's kernel symbols, for perf: where they come from, whether they serve, where they go.

/proc/kallsyms and /proc/modules have no size: what copies a file by its size copies nothing (scp, a
mount of sshfs without direct_io), so each is read to its end. What comes from a guest is its text:
the sizes have limits, and no name from the guest becomes part of a path or of a command.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator

from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.guest_rows import SeenGuest
from tuned_virt.cli.perf_command import KALLSYMS, MODULES
from tuned_virt.core.options import SYSTEM
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.libvirt_api import guest_agent
from tuned_virt.libvirt_api.guest_agent import AgentError

MOST = {"/proc/kallsyms": 64 << 20, "/proc/modules": 1 << 20}
"""Bytes: a kernel with all modules loaded has 20 MiB and 100 KiB."""

REMOTE = "cat /proc/modules; echo; cat /proc/kallsyms"
"""What a login prints of both, an empty line between them."""

SSH_PATIENCE = 120.0
"""Seconds for a login, where somebody may type a passphrase, and for the files."""

HOST = re.compile(
    r"(?:ssh://)?(?:[A-Za-z0-9_][\w.-]*@)?(?:[A-Za-z0-9_][\w.:%-]*|\[[\w.:%]+\](:\d+)?)"
)
"""[USER@]HOST, or ssh://[USER@]HOST[:PORT]; never what ssh takes for an option."""

ELSEWHERE = (
    "--ssh [USER@]HOST logs into the guest instead, --guestmount FOLDER takes a mount of its root"
)


@dataclass(frozen=True)
class GuestSymbols:
    """The contents of a guest's two files."""

    kallsyms: bytes
    modules: bytes


def fault(symbols: GuestSymbols) -> str:
    """Why perf would find no symbols in these files, though it says nothing; "" for nothing."""
    kallsyms, modules = symbols.kallsyms, symbols.modules
    if not kallsyms:
        return "/proc/kallsyms is empty: it was copied by its size, which is 0"
    if not re.match(rb"[0-9a-f]{8,16} \S \S", kallsyms):
        return "/proc/kallsyms does not have lines of address, type and name"
    if not re.search(rb"^0*[1-9a-f]", kallsyms, re.MULTILINE):
        return (
            "all addresses in /proc/kallsyms are zero: the guest hides them (kernel.kptr_restrict"
            " is 2, or who has read them is not root there)"
        )
    if not re.search(rb"^[0-9a-f]+ [Tt] _s?text$", kallsyms, re.MULTILINE):
        return "/proc/kallsyms has neither _text nor _stext, from which perf places the kernel"
    return _fault_of_modules(kallsyms, modules)


def _fault_of_modules(kallsyms: bytes, modules: bytes) -> str:
    if not modules:
        named = re.search(rb"\t\[(?!bpf\]|__builtin)([\w-]+)\]$", kallsyms, re.MULTILINE)
        if not named:
            return ""  # a kernel that has everything built in
        return (
            f"/proc/modules is empty, and /proc/kallsyms names the module {named[1].decode()}: it"
            " was copied by its size, which is 0"
        )
    if not re.fullmatch(rb"(?:[\w-]+ \d+ .*\n)+", modules):
        return "/proc/modules does not have lines of name, size and address"
    if not re.search(rb" 0x0*[1-9a-f]", modules):
        return "all addresses in /proc/modules are zero: the guest hides them"
    return ""


def ssh_command(host: str) -> list[str]:
    """What prints both files. Raises CouldNot."""
    if not HOST.fullmatch(host):
        raise CouldNot(f"--ssh {host!r}: [USER@]HOST or ssh://[USER@]HOST[:PORT] is valid")
    return ["ssh", "-T", "--", host, REMOTE]


def both(printed: bytes) -> GuestSymbols:
    """The two files of what `REMOTE` prints."""
    if printed.startswith(b"\n"):
        return GuestSymbols(printed[1:], b"")
    modules, _, kallsyms = printed.partition(b"\n\n")
    return GuestSymbols(kallsyms, modules + b"\n")


# --- where they come from ------------------------------------------------------------------------


def by_agent(guest: SeenGuest) -> GuestSymbols:
    """Through the guest's agent. Raises CouldNot."""
    if not guest.process.by_libvirt or not guest.uuid:
        raise CouldNot(f"libvirt has not started this guest, so its agent is not used; {ELSEWHERE}")
    try:
        found = guest_agent.read_files(guest.uuid, MOST, guest.uri or SYSTEM)
    except AgentError as error:
        raise CouldNot(f"{error}; {ELSEWHERE}") from error
    kallsyms = found["/proc/kallsyms"]
    if kallsyms is None:
        raise CouldNot("the guest has no /proc/kallsyms: its kernel is not Linux, or has none")
    return GuestSymbols(kallsyms, found["/proc/modules"] or b"")


def over_ssh(host: str) -> GuestSymbols:
    """By a login into the guest, which may ask for a passphrase. Raises CouldNot."""
    most = sum(MOST.values())
    try:
        login = subprocess.Popen(
            ssh_command(host), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
    except OSError as error:
        raise CouldNot(f"ssh: {error.strerror}") from error
    limit = threading.Timer(SSH_PATIENCE, login.kill)
    limit.start()
    try:
        assert login.stdout is not None
        printed = login.stdout.read(most + 1)
        if len(printed) > most:
            raise CouldNot(f"--ssh {host}: the guest's files are larger than {most} bytes")
        login.stdout.close()
        code = login.wait()
    finally:
        login.kill()
        login.wait()
        limit.cancel()
    if code:
        why = f"not done after {SSH_PATIENCE:g} s" if code < 0 else f"ssh's exit code is {code}"
        raise CouldNot(f"--ssh {host}: the guest's files cannot be read: {why}")
    return both(printed)


def from_root(folder: str) -> GuestSymbols:
    """From a mount of the guest's root. Raises CouldNot."""
    found = [_bounded(folder + path, size) for path, size in MOST.items()]
    return GuestSymbols(found[0] or b"", found[1] or b"")


def kept(folder: str) -> GuestSymbols:
    """From a folder of an earlier --keep. Raises CouldNot."""
    sizes = dict(zip((KALLSYMS, MODULES), MOST.values()))
    found = [_bounded(os.path.join(folder, name), size) for name, size in sizes.items()]
    if found[0] is None:
        raise CouldNot(f"--symbols {folder}: there is no file {KALLSYMS}, as --keep writes it")
    return GuestSymbols(found[0], found[1] or b"")


def _bounded(file: str, most: int) -> bytes | None:
    """A file to its end; None where there is none. Raises CouldNot."""
    try:
        with open(file, "rb") as opened:
            content = opened.read(most + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CouldNot(f"{file}: {error.strerror}") from error
    if len(content) > most:
        raise CouldNot(f"{file} is larger than {most} bytes")
    return content


# --- where they go -------------------------------------------------------------------------------


@contextlib.contextmanager
def folder(keep: str | None) -> Iterator[str]:
    """One that nobody else can read: a temporary one, or the user's own. Raises CouldNot."""
    if keep is not None:
        yield _own(keep)
        return
    with tempfile.TemporaryDirectory(prefix="tuned-virt-perf-") as made:
        yield made


def _own(path: str) -> str:
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        found = os.lstat(path)
    except OSError as error:
        raise CouldNot(f"--keep {path}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise CouldNot(f"--keep {path}: not a folder")
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise CouldNot(f"--keep {path}: others may write to this folder; name a new one")
    return os.path.abspath(path)


def write(into: str, symbols: GuestSymbols) -> None:
    """Both files; one that is there already is not replaced. Raises CouldNot."""
    for name, content in ((KALLSYMS, symbols.kallsyms), (MODULES, symbols.modules)):
        file = os.path.join(into, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(file, flags, 0o600), "wb") as opened:
                opened.write(content)
        except FileExistsError as error:
            text = f"{file} exists: --symbols uses it; to fetch anew, name another folder"
            raise CouldNot(text) from error
        except OSError as error:
            raise CouldNot(f"{file}: {error.strerror}") from error


def link_root(into: str, pid: int, root: str) -> None:
    """Name a guest's root by its process, as perf looks for it. Raises CouldNot."""
    try:
        os.symlink(os.path.abspath(root), os.path.join(into, str(pid)))
    except OSError as error:
        raise CouldNot(f"{into}/{pid}: {error.strerror}") from error
