# SPDX-License-Identifier: GPL-2.0-or-later
"""A minimal Debian in a folder, as a machine of its own: files, processes, D-Bus and /run.

    with Machine("bookworm", source) as machine:
        done = machine.run("make up")

Kernel and network are this machine's. What is written into the kernel is put back at the end.
Nothing else can outlive it: its first process holds the mounts and the processes; all end with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests import debian
from tests.stacked import Stacked
from tests.vm import kernel

INCLUDED = ("make", "git", "ca-certificates")
"""What it takes to have a checkout and to say `make`; all else is for `make` to install."""

LEFT_OUT = ("/usr/share/locale/*", "/usr/share/doc/*")

CHECKOUT = "/root/tuned-virt-plus"

INIT = """
set -eu
mount --bind "$1" "$1"
cd "$1"
mount --rbind /sys sys
mount --rbind /dev dev
mount -t proc proc proc
mount -t tmpfs -o mode=755 run run
mount --move . /
exec chroot . bash -c 'echo ready; read -r'
"""
"""Ends in a process that keeps the namespaces and, as bash does, reaps orphans, until its input
ends: with the process of the tests, however that ends."""

COPIED = ("etc/resolv.conf", "etc/hosts", "etc/pip.conf", "usr/local/share/ca-certificates")
"""How this machine reaches the network: names, certificates, where pip looks."""

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
ENVIRONMENT |= {"HOME": "/root", "LANG": "C.UTF-8"}

PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "pip_index_url", "pip_proxy")
"""Variables of the environment, in whatever case."""


@dataclass(frozen=True)
class Done:
    """What a command printed, its exit status, and the seconds that it took."""

    output: str
    status: int
    seconds: float


class Machine(Stacked):
    """One such machine with a clone of a checkout; see the module.

    With `keep`, its folder stays behind for a look.
    """

    def __init__(self, suite: str, source: Path, keep: bool = False) -> None:
        self.suite = suite
        self._source = source
        self._keep = keep

    def __enter__(self) -> Machine:
        with contextlib.ExitStack() as stack:
            base = debian.CACHE / "fresh" / self.suite
            debian.bootstrap(self.suite, base, INCLUDED, LEFT_OUT)
            self.root = Path(tempfile.mkdtemp(prefix=f"{self.suite}-", dir=base.parent))
            self.root.chmod(0o755)
            if not self._keep:
                stack.callback(shutil.rmtree, self.root)
            subprocess.run(
                [
                    "cp",
                    "--archive",
                    "--one-file-system",
                    "--reflink=auto",
                    f"{base}/.",
                    str(self.root),
                ],
                check=True,
            )
            stack.callback(kernel.put_back, kernel.state())
            self._start(stack)
            self._connect()
            self._clone()
            self._stack = stack.pop_all()
        return self

    def _start(self, stack: contextlib.ExitStack) -> None:
        unshare = ["unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child"]
        holder = subprocess.Popen(
            [*unshare, "--propagation", "private", "sh", "-c", INIT, "sh", str(self.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdin is not None
        assert holder.stdout is not None
        stack.callback(holder.wait)  # until the last of its processes has ended
        stack.callback(holder.stdout.close)
        stack.callback(holder.stdin.close)
        if holder.stdout.readline() != "ready\n":
            raise RuntimeError("its namespaces could not be set up; stderr says why")
        self._pid = int(Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text())

    def _connect(self) -> None:
        """Have it reach what this machine reaches, with the same trust."""
        for name in COPIED:
            there, here = self.root / name, Path("/", name)
            if here.is_dir():
                shutil.copytree(here, there, dirs_exist_ok=True)
            elif here.exists():
                shutil.copyfile(here, there)
        self._quietly("update-ca-certificates")

    def _clone(self) -> None:
        """By a bundle: this checkout's folder, owner and other branches stay unknown there."""
        bundle = self.root / "root/checkout.bundle"
        safe = f"safe.directory={self._source}"
        git = ["git", "-c", safe, "-C", str(self._source), "bundle", "create", "--quiet"]
        subprocess.run([*git, str(bundle), "HEAD"], check=True)
        self._quietly(f"cd / && git clone --quiet /root/checkout.bundle {CHECKOUT}")

    def _quietly(self, command: str) -> None:
        done = subprocess.run(self._command(command), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{self.suite}: {command}: {done.stdout}{done.stderr}")

    def _command(self, command: str) -> list[str]:
        passed = [f"{k}={v}" for k, v in os.environ.items() if k.lower() in PASSED_ON]
        fixed = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        inside = ["nsenter", "-t", str(self._pid), "-m", "-p", "-i", "-r", "-w", "--"]
        return [*inside, "env", "--ignore-environment", *fixed, *passed, "sh", "-c", command]

    def run(self, command: str) -> Done:
        """Run a shell's line in the clone, and show what it prints while it does."""
        started = time.monotonic()
        printed = []
        process = subprocess.Popen(
            self._command(f"cd {CHECKOUT} && {{ {command}; }}"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                printed.append(line)
                sys.stdout.write(f"    {line}")
                sys.stdout.flush()
        return Done("".join(printed), process.returncode, time.monotonic() - started)

    def files(self) -> Mapping[str, str]:
        """Mode, size and time of each file that `make up` may write; Python's own left out."""
        return dict(self._files())

    def _files(self) -> Iterator[tuple[str, str]]:
        for top in ("etc", "usr", "var/lib/tuned-virt"):
            for folder, _, names in os.walk(self.root / top):
                for name in () if folder.endswith("__pycache__") else names:
                    found = os.lstat(Path(folder, name))
                    path = f"/{Path(folder, name).relative_to(self.root)}"
                    mode = stat.filemode(found.st_mode)
                    yield path, f"{mode} {found.st_size} bytes, {found.st_mtime_ns}"
