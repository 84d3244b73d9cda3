"""Who else drives KSM on this machine: two masters would undo each other's work.

The services ksm and ksmtuned (RHEL's qemu-kvm, Debian's ksmtuned, Proxmox' ksm-control-daemon) are
stopped and later started again. An administrator who has masked them has switched KSM off on
purpose, and MOM (oVirt) and KubeVirt have policies of their own: `mode=auto` leaves KSM to those.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

from tuned_virt.kernelfs import KernelFileError, KernelFS

ACTIVE = "active"
INACTIVE = "inactive"

KSM_SERVICE = "ksm.service"
"""Its start writes run=1, its stop run=0."""

UNITS = (KSM_SERVICE, "ksmtuned.service")
"""In the order of starting; stopped in the other (ksmtuned requires ksm)."""

UNIT_FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system")

MASKING_FOLDERS = UNIT_FOLDERS[:2]

OTHERS: Mapping[str, str] = {"momd": "MOM", "virt-handler": "KubeVirt"}
"""Names of processes that set KSM by themselves: oVirt's MOM, KubeVirt's agent on each node."""

SECONDS = 60
"""For systemctl: ksmctl and ksmtuned stop at once, a busy systemd does not."""


@dataclass(frozen=True)
class Masters:
    """The services that are installed, with their state; those masked; and who else is there."""

    services: Mapping[str, str] = field(default_factory=dict)
    masked: tuple[str, ...] = ()
    other: str = ""

    @property
    def hands_off(self) -> str:
        """Why `mode=auto` leaves KSM alone, "" where nothing speaks against it."""
        if self.masked:
            return f"{' and '.join(self.masked)} masked: KSM is switched off on purpose"
        return f"{self.other} drives KSM" if self.other else ""


def read(fs: KernelFS) -> Masters:
    """Who is there now."""
    masked = tuple(unit for unit in UNITS if _masked(fs, unit))
    installed = [unit for unit in UNITS if unit not in masked and _installed(fs, unit)]
    services = {unit: state(unit) for unit in installed}
    return Masters(services, masked, _other(fs))


def _masked(fs: KernelFS, unit: str) -> bool:
    return any(fs.link(f"{folder}/{unit}") == "/dev/null" for folder in MASKING_FOLDERS)


def _installed(fs: KernelFS, unit: str) -> bool:
    return any(fs.exists(f"{folder}/{unit}") for folder in UNIT_FOLDERS)


def state(unit: str) -> str:
    """Active, also while it starts or reloads; inactive where systemd does not run."""
    try:
        done = _systemctl("is-active", unit)
    except KernelFileError:
        return INACTIVE
    return ACTIVE if done in (ACTIVE, "activating", "reloading") else INACTIVE


def _other(fs: KernelFS) -> str:
    for name in fs.names("/proc"):
        comm = (fs.read_optional(f"/proc/{name}/comm") or "") if name.isdigit() else ""
        if comm in OTHERS:
            return f"{OTHERS[comm]} (process {comm}, {name})"
    return ""


def set_state(unit: str, wanted: str) -> None:
    """Start or stop a service. Raises KernelFileError."""
    _systemctl("start" if wanted == ACTIVE else "stop", unit)
    found = state(unit)
    if found != wanted:
        raise KernelFileError(unit, f"it is {found} afterwards", wanted)


def _systemctl(verb: str, unit: str) -> str:
    try:
        done = subprocess.run(
            ["systemctl", verb, unit], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise KernelFileError(unit, f"systemctl {verb}: {error}", verb) from error
    return done.stdout.strip()
