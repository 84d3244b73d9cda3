# SPDX-License-Identifier: GPL-2.0-or-later
"""The booted machine's own libvirtd, with real QEMU guests (TCG) and the cgroup controllers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import subprocess
import threading
import time
import uuid as uuids
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import libvirt

from tests.sandbox import wait_for
from tuned_virt.kernel import mempolicy

libvirt.registerErrorHandler(lambda *_: None, None)

URI = "qemu:///system"
FOLDERS = ("/run/libvirt", "/var/log/libvirt/qemu", "/var/lib/libvirt/qemu")
KNOWN = Path("/var/cache/libvirt/qemu/capabilities")
"""What libvirt has learned of each QEMU, which takes 45 s under emulation."""

SLOW_SECONDS = 120

PR_SET_CHILD_SUBREAPER = 36
"""Of the kernel's include/uapi/linux/prctl.h."""

QEMU_CONF = """
stdio_handler = "file"
namespaces = []
security_driver = "none"
user = "root"
group = "root"
remember_owner = 0
"""

GUEST = """
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{mib}</memory>
  <vcpu{current}>{vcpus}</vcpu>
  {iothreads}
  <memoryBacking><allocation mode='immediate'/></memoryBacking>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <video><model type='none'/></video>
  </devices>
  {extra_xml}
</domain>
"""


class Libvirtd:
    """Started once for all tests of a boot."""

    def __init__(self, known: Path, interleaved: bool = True) -> None:
        self._interleaved = interleaved
        for folder in (*FOLDERS, KNOWN, "/etc/libvirt"):
            Path(folder).mkdir(parents=True, exist_ok=True)
        with open("/etc/passwd", "a") as users, open("/etc/group", "a") as groups:
            users.write("libvirt-qemu:x:64055:64055::/:/bin/false\n")
            groups.write("libvirt-qemu:x:64055:\n")
        Path("/etc/libvirt/qemu.conf").write_text(QEMU_CONF)
        Path("/etc/libvirt/libvirtd.conf").write_text('auth_unix_rw = "none"\n')
        if known.exists():
            shutil.copytree(known, KNOWN, dirs_exist_ok=True)
        self.start()
        shutil.copytree(KNOWN, known, dirs_exist_ok=True)

    def start(self) -> None:
        """Start libvirtd and wait until it answers.

        Guests' memory comes from all nodes in turn, as on a host that has run for long; unless
        interleaved, from the node where QEMU runs as it starts, as the kernel has it by itself.
        """
        adopt_guests()
        with mempolicy.interleaved({0, 1, 2, 3} if self._interleaved else set()):
            self._daemon = subprocess.Popen(
                ["libvirtd"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
        wait_for("libvirtd answers", self._answers, SLOW_SECONDS)

    def _answers(self) -> bool:
        try:
            self.connection = libvirt.open(URI)
            self.connection.getCapabilities()
            return True
        except libvirt.libvirtError:
            return False

    def stop(self) -> None:
        """Pull all plugs, and end the daemon."""
        for domain in self.connection.listAllDomains():
            if domain.isActive():
                domain.destroy()
        self.connection.close()
        self._daemon.kill()
        self._daemon.wait()

    def start_guest(self, name: str, vcpus: int = 1, mib: int = 64, **more: Any) -> str:
        """Start a guest whose memory is all allocated at once; its UUID."""
        uuid = str(uuids.uuid4())
        flags = more.pop("flags", 0)
        self.connection.createXML(xml(name, uuid, vcpus, mib, **more), flags)
        return uuid

    def stop_guest(self, name: str) -> None:
        """Pull a guest's plug."""
        self.connection.lookupByName(name).destroy()


def adopt_guests() -> None:
    """Have QEMU's processes end when they are killed: nobody reaps them in the booted machine.

    libvirt waits 80 s for each otherwise.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    threading.Thread(target=_reap, daemon=True).start()


def _reap() -> None:
    while True:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
        for pid in map(int, children.split()):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, ChildProcessError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("qemu"):
                    os.waitpid(pid, os.WNOHANG)
        time.sleep(0.1)


def xml(
    name: str,
    uuid: str,
    vcpus: int,
    mib: int,
    iothreads: int = 0,
    extra_xml: str = "",
    current: int | None = None,
) -> str:
    """A guest with neither disk nor network."""
    return GUEST.format(
        name=escape(name),
        uuid=uuid,
        mib=mib,
        vcpus=vcpus,
        current=f" current='{current}'" if current else "",
        iothreads=f"<iothreads>{iothreads}</iothreads>" if iothreads else "",
        extra_xml=extra_xml,
    )


def pid_of(name: str) -> int:
    """A guest's process."""
    return int(Path(f"/run/libvirt/qemu/{name}.pid").read_text())


def affinities(name: str) -> dict[str, str]:
    """Thread's name and number → Cpus_allowed_list."""
    pid = pid_of(name)
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = (task / "status").read_text()
        allowed = re.search(r"^Cpus_allowed_list:\s*(\S+)$", status, re.MULTILINE)
        assert allowed
        found[f"{(task / 'comm').read_text().strip()} {task.name}"] = allowed[1]
    return found


def ram_by_node(name: str, mib: int) -> Mapping[int, int]:
    """Node → pages of the guest's RAM: the mapping that is exactly as long."""
    pid = pid_of(name)
    starts = {
        line.split("-")[0]
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
        if _length(line) == mib << 20
    }
    total: dict[int, int] = {}
    for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines():
        if line.split()[0].lstrip("0") in starts or line.split()[0] in starts:
            for node, pages in re.findall(r"N(\d+)=(\d+)", line):
                total[int(node)] = total.get(int(node), 0) + int(pages)
    return total


def _length(line: str) -> int:
    start, end = line.split(maxsplit=1)[0].split("-")
    return int(end, 16) - int(start, 16)


def process_exists(pid: int) -> bool:
    """Whether a process runs."""
    return os.path.exists(f"/proc/{pid}")
