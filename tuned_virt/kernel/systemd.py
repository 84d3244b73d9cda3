# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD's service as systemd sees it, other daemons by their processes, and this machine's role."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

from tuned_virt.kernel import commands, procfs, timeouts
from tuned_virt.kernel.commands import ToolError
from tuned_virt.kernel.files import KernelFileError, KernelFS

SERVICE = "tuned.service"

LIBVIRT_DAEMONS = ("/usr/sbin/libvirtd", "/usr/sbin/virtqemud")
"""Where one of these is installed, the machine is meant to run guests."""


NO_VM = ("", "none")
"""What systemd-detect-virt says of a machine that is none."""


class RoleUnknown(Exception):
    """systemd-detect-virt cannot be asked."""


def in_chroot() -> bool:
    """Whether an ancestor of this process, the system's first one at last, has another root.

    The bus in /run may then be another system's: an installer's, an image builder's.
    """
    return any(map(_has_another_root, _ancestors()))


def _has_another_root(pid: int) -> bool:
    """False also where we may not know: in containers the first process can be closed to us."""
    try:
        return not os.path.samefile("/", f"/proc/{pid}/root")
    except OSError:
        return False


def _ancestors() -> Iterator[int]:
    """Parent, its parent and so on, as far as they are to be seen."""
    pid = os.getppid()
    while pid > 0:
        yield pid
        try:
            pid = procfs.parent(pid)
        except KernelFileError:
            return


def restarting() -> bool:
    """Whether systemd stops TuneD only to start it again; False where systemd does not run."""
    try:
        return is_restart(systemctl("list-jobs", "--no-legend", "--plain", seconds=5))
    except ToolError:
        return False


def systemctl(*words: str, seconds: float = timeouts.SERVICE_RESTART) -> str:
    """What systemctl prints. Raises ToolError, ToolUnavailable where systemd does not run."""
    return commands.run("systemctl", *words, seconds=seconds)


def is_restart(jobs: str) -> bool:
    """Whether `systemctl list-jobs` (number, unit, type, state) has a restart of TuneD."""
    words = (line.split() for line in jobs.splitlines())
    return any(word[1:3] == [SERVICE, "restart"] for word in words)


def role(fs: KernelFS) -> str:
    """ "host" or "guest". A machine that is both, a guest meant to run guests, is a host.

    Raises RoleUnknown.
    """
    return decide_role(virtualization(), runs_guests(fs))


def in_guest() -> bool:
    """Whether this machine is a virtual one. Raises RoleUnknown."""
    return virtualization() not in NO_VM


def runs_guests(fs: KernelFS) -> bool:
    """Whether this machine is meant to run guests."""
    return any(map(fs.exists, LIBVIRT_DAEMONS))


def virtualization() -> str:
    """What systemd-detect-virt says of the machine, containers left out. Raises RoleUnknown."""
    try:
        found = subprocess.run(
            ["systemd-detect-virt", "--vm"], capture_output=True, text=True, timeout=10, check=False
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        raise RoleUnknown(f"systemd-detect-virt: {error}") from error
    return found


def decide_role(hypervisor: str, runs_guests: bool) -> str:
    """The role, from systemd-detect-virt's word and whether a libvirt daemon is installed."""
    in_vm = hypervisor not in NO_VM
    return "guest" if in_vm and not runs_guests else "host"
