# SPDX-License-Identifier: GPL-2.0-or-later
"""An installed system in a folder: files and programs, no daemon, no kernel of its own, no network.

A small Debian (mmdebstrap, unpacked once and kept) under a copy-on-write layer in a mount namespace
that ends with the test. What runs inside is in a chroot, as in an installer's %post.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from tests import debian
from tests.debian import CACHE
from tests.stacked import Stacked

SUITE = "bookworm"

INCLUDED = (
    "tuned",
    "dbus",
    "systemd",
    "virt-what",
    "python3-argcomplete",
    "python3-configobj",
    "python3-dbus",
    "python3-defusedxml",
    "python3-jinja2",
    "python3-jsonschema",
    "python3-libvirt",
    "python3-prometheus-client",
    "python3-rich",
    "bash-completion",
)
"""What the packages need, so that installing them downloads nothing; the last release needs rich"""

KEPT_BY_OTHERS = tuple(
    f"/var/{name}/" for name in ("cache", "lib/apt", "lib/dnf", "lib/dpkg", "lib/rpm", "log")
)

ENTER = """
set -eu
mount -t tmpfs -o mode=755 root "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
mount -t proc proc "$2/root/proc"
mount --rbind /dev "$2/root/dev"
mount -t tmpfs -o mode=755 run "$2/root/run"
echo ready
sleep infinity & wait
"""


def base() -> Path:
    """The system that every root begins as; made once, then kept. Raises debian.Unavailable."""
    folder = CACHE / "roots" / f"{SUITE}-{zlib.crc32(' '.join(INCLUDED).encode()):08x}"
    return debian.bootstrap(SUITE, folder, INCLUDED, exclude=("/usr/share/locale/*",))


class Root(Stacked):
    """One such system, gone when the with block ends."""

    def __enter__(self) -> Root:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tuned-virt-root-"))
            self._holder = stack.enter_context(
                subprocess.Popen(
                    [
                        *("unshare", "--mount", "--net", "--propagation", "private"),
                        *("sh", "-c", ENTER, "sh", str(base()), folder),
                    ],
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(self._end)
            assert self._holder.stdout
            assert self._holder.stdout.readline() == "ready\n"
            self.inside = f"{folder}/root"
            self.path = Path(f"/proc/{self._holder.pid}/root{self.inside}")
            self._stack = stack.pop_all()
        return self

    def _end(self) -> None:
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text()
        self._holder.kill()
        for child in children.split():
            os.kill(int(child), 9)

    def outside(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run one of this machine's programs where the root is at `inside`."""
        command = ["nsenter", "-t", str(self._holder.pid), "-m", "-n", "--", *argv]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}
        return subprocess.run(
            command,
            env={**environment, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, *argv: str, status: int = 0) -> str:
        """What a program inside prints, which has to end with a status."""
        done = self.outside(["chroot", self.inside, *argv])
        assert done.returncode == status, f"{argv} → {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def put(self, source: Path, folder: str) -> str:
        """Copy a file inside; its path there."""
        target = self.path / folder.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        return f"{folder}/{source.name}"

    def text(self, path: str) -> str:
        """A file's text."""
        return (self.path / path.lstrip("/")).read_text()

    def files(self) -> dict[str, str]:
        """Every file below /etc, /usr and /var: mode, and a link's target or the content's hash.

        Without what package managers, Python and logs keep for themselves.
        """
        walked = (
            Path(folder) / name
            for top in ("etc", "usr", "var")
            for folder, folders, names in os.walk(self.path / top)
            for name in (*names, *(name for name in folders if (Path(folder) / name).is_symlink()))
        )
        named = ((f"/{path.relative_to(self.path)}", path) for path in walked)
        return {
            name: _described(path)
            for name, path in named
            if "/__pycache__/" not in name and not name.startswith(KEPT_BY_OTHERS)
        }


def _described(path: Path) -> str:
    if path.is_symlink():
        return os.readlink(path)
    return f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def record_calls(root: Root) -> Path:
    """Put programs that only note their call in the place of those that reach a manager."""
    for name in ("systemctl", "tuned-adm", "dbus-send"):
        program = root.path / "usr/bin" / name
        program.unlink(missing_ok=True)
        program.write_text(f"#!/bin/sh\necho {name} $* >>/called\n")
        program.chmod(0o755)
    called = root.path / "called"
    called.touch()
    return called
