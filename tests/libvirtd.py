# SPDX-License-Identifier: GPL-2.0-or-later
"""A private libvirtd with real QEMU guests (TCG), for tests of what follows or tunes guests.

    with Libvirtd() as libvirtd:                  # in namespaces of its own; open libvirtd.uri
    with Sandbox("2.25") as t, Libvirtd(t) as libvirtd:    # for the TuneD inside: qemu:///system
        uuid = libvirtd.start_guest("web1"); libvirtd.stop_guest("web1")

It never sees /dev/kvm: where that exists but cannot be used, libvirt probes QEMU for 48 s a guest.
The machine's own libvirt and its files are neither used nor touched.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import uuid as uuids
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from xml.sax.saxutils import escape

import libvirt

from tests.sandbox import wait_for
from tests.stacked import Stacked

libvirt.registerErrorHandler(lambda *_: None, None)  # they are raised; stderr is for pytest

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}

OWN_ROOT = r"""
mount -t tmpfs -o mode=755 run /run
for folder in etc var; do
    mkdir -p /run/upper/$folder /run/work/$folder
    mount -t overlay -o "lowerdir=/$folder,upperdir=/run/upper/$folder,workdir=/run/work/$folder" \
        overlay /$folder
done
"""
"""What a Sandbox has already: files that may be written without anybody seeing it."""

PREPARE = r"""
mkdir -p /run/libvirt
for folder in /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
    mkdir -p $folder
    mount -t tmpfs -o mode=755 libvirt $folder
done
if ! getent passwd libvirt-qemu >/dev/null; then
    echo 'libvirt-qemu:x:64055:64055::/:/bin/false' >>/etc/passwd
    echo 'libvirt-qemu:x:64055:' >>/etc/group
fi
cat >/etc/libvirt/qemu.conf <<END
stdio_handler = "file"
namespaces = []
cgroup_controllers = [$CONTROLLERS]
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
END
cat >/etc/libvirt/libvirtd.conf <<END
unix_sock_group = "root"
auth_unix_ro = "none"
auth_unix_rw = "none"
END
if mountpoint --quiet /dev/hugepages; then umount /dev/hugepages; fi  # systemd's
if [ -n "$CONTROLLERS" ] && mountpoint -q /sys/fs/cgroup/unified; then
    umount /sys/fs/cgroup/unified  # where it has no controller, libvirt 9.0 starts no guest
fi
mkdir /run/libvirt/dev
mount --rbind /dev /run/libvirt/dev
mount -t tmpfs -o mode=755 dev /dev
for device in null zero full random urandom tty; do
    touch /dev/$device
    mount --bind /run/libvirt/dev/$device /dev/$device
done
mkdir /dev/pts /dev/shm
mount --rbind /run/libvirt/dev/pts /dev/pts
mount -t tmpfs shm /dev/shm
umount -l /run/libvirt/dev
rmdir /run/libvirt/dev
echo ready
sleep infinity & wait
"""
"""Ends in a process that keeps the namespace and, as bash does, reaps orphans: libvirt waits long
for a QEMU that has ended and is not reaped."""

GUEST = """
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{mib}</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <video><model type='none'/></video>
  </devices>
  {extra_xml}
</domain>
"""


class Inside(Protocol):
    """What a Libvirtd asks of the Sandbox that it is to run in."""

    pid: int

    def command(self, argv: Sequence[str]) -> list[str]:
        """The argument vector that runs a command inside."""


class Libvirtd(Stacked):
    """A libvirtd, inside a sandbox or alone; leaves no process behind.

    `uri` opens it from the test's process, for reading and writing; inside it is qemu:///system.
    `controllers` are those that guests get cgroups of, as in qemu.conf: '"blkio"'.
    `seconds` is how long it may take to start and to end.
    """

    def __init__(
        self, inside: Inside | None = None, controllers: str = "", seconds: float = 20
    ) -> None:
        self._inside = inside
        self._seconds = seconds
        self._prepare = f"CONTROLLERS='{controllers}'\n{PREPARE}"
        self._stack = contextlib.ExitStack()
        self._daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Libvirtd:
        with contextlib.ExitStack() as stack:
            holder = subprocess.Popen(
                self._namespaces(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                env=ENVIRONMENT,
            )
            assert holder.stdout is not None
            stack.callback(holder.wait)
            stack.callback(holder.stdout.close)
            stack.callback(holder.kill)
            if holder.stdout.readline() != "ready\n":
                raise RuntimeError("libvirtd's namespace was not set up; its stderr says why")
            self._holder = _child(holder)
            stack.callback(self._kill_all)
            self.socket = f"/proc/{self._holder}/root/run/libvirt/libvirt-sock"
            self.uri = f"qemu+unix:///system?socket={self.socket}"
            self.start()
            self._stack = stack.pop_all()
        return self

    def _namespaces(self) -> list[str]:
        mount = ["unshare", "--mount", "--propagation", "private"]
        if self._inside is not None:
            return self._inside.command([*mount, "bash", "-euc", self._prepare])
        own = ["--pid", "--net", "--fork", "--kill-child", "--mount-proc"]
        return [*mount, *own, "bash", "-euc", OWN_ROOT + self._prepare]

    def command(self, argv: Sequence[str]) -> list[str]:
        """The argument vector that runs a command where libvirtd runs."""
        spaces = ["-m", "-p", "-n", "-i", "-r", "--wdns=/"]
        return ["nsenter", "-t", str(self._holder), *spaces, "--", *argv]

    def _kill_all(self) -> None:
        """End libvirtd first, that it starts no more, then all that share its namespace."""
        if self._daemon is not None:
            self.kill9()
        namespace = os.stat(f"/proc/{self._holder}/ns/mnt").st_ino

        def none_left() -> bool:
            for pid in _processes(namespace):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not _processes(namespace)

        wait_for("no process of libvirt left", none_left, self._seconds)

    # --- the daemon -------------------------------------------------------------------------

    def start(self) -> None:
        """Start libvirtd and wait until it answers."""
        self._daemon = subprocess.Popen(
            self.command(["libvirtd"]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
        )
        wait_for("libvirtd answers", self._answers, self._seconds)
        self.pid = _child(self._daemon)

    def _answers(self) -> bool:
        assert self._daemon is not None
        if self._daemon.poll() is not None:
            raise RuntimeError(f"libvirtd has ended: {self._daemon.returncode}")
        try:
            with self.connection():
                return True
        except libvirt.libvirtError:
            return False

    def kill9(self) -> None:
        """kill -9 of libvirtd, and wait until it is gone; its guests run on."""
        assert self._daemon is not None
        os.kill(self.pid, signal.SIGKILL)
        self._daemon.send_signal(signal.SIGCONT)  # nsenter stops itself with its child
        self._daemon.wait(timeout=10)
        self._daemon = None

    def restart(self) -> None:
        """kill -9 where it still runs, and start it."""
        if self._daemon is not None:
            self.kill9()
        self.start()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """libvirtd hangs, without a word, for the length of the with block."""
        assert self._daemon is not None
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            self._daemon.send_signal(signal.SIGCONT)  # nsenter stops itself with its child
            os.kill(self.pid, signal.SIGCONT)

    # --- guests -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def connection(self) -> Iterator[Any]:
        """A connection of its own, for what the other methods do not do."""
        opened = libvirt.open(self.uri)
        try:
            yield opened
        finally:
            opened.close()

    def start_guest(self, name: str, mib: int = 16, extra_xml: str = "") -> str:
        """Start a guest with neither disk nor network; its UUID."""
        uuid = str(uuids.uuid4())
        xml = GUEST.format(name=escape(name), uuid=uuid, mib=mib, extra_xml=extra_xml)
        with self.connection() as connection:
            connection.createXML(xml)
        return uuid

    def stop_guest(self, name: str) -> None:
        """Pull a guest's plug."""
        with self.connection() as connection:
            connection.lookupByName(name).destroy()

    def forget_guests(self) -> None:
        """Pull the plug of all, and undefine them."""
        with self.connection() as connection:
            for domain in connection.listAllDomains():
                persistent = domain.isPersistent()
                if domain.isActive():
                    domain.destroy()
                if persistent:
                    domain.undefine()

    def guest_pid(self, name: str) -> int:
        """The guest's QEMU process, as the test sees it."""
        wanted = f"guest={name.replace(',', ',,')},".encode()
        namespace = os.stat(f"/proc/{self._holder}/ns/mnt").st_ino
        for pid in _processes(namespace):
            if wanted in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        raise LookupError(name)


def _child(process: subprocess.Popen[Any]) -> int:
    """The one process that unshare or nsenter has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for("a process in the namespace", lambda: children.read_text() != "")
    return int(children.read_text())


def _processes(namespace: int) -> list[int]:
    """Processes in a mount namespace, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "ns/mnt").stat().st_ino == namespace:
                    found.append(int(entry.name))
    return found
