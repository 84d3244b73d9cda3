# SPDX-License-Identifier: GPL-2.0-or-later
"""Who else controls KSM on this machine: two that set it undo each other's work.

The services ksm and ksmtuned (RHEL's qemu-kvm, Debian's ksmtuned, Proxmox' ksm-control-daemon) are
stopped and later started again. An administrator who has masked them, or set KSM_ENABLED=0 for
Ubuntu's qemu-kvm.service, has switched KSM off on purpose, and MOM (oVirt), KubeVirt and Harvester
have policies of their own: `mode=auto` leaves KSM to those. The last two are on every node of a
cluster, and set KSM only where the cluster is configured so, which no file of the node tells: they
count where KSM is in use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tuned_virt.frozen_dataclasses import dataclass, field, replace
from tuned_virt.kernel import procfs
from tuned_virt.kernel.commands import ToolError, ToolUnavailable
from tuned_virt.kernel.files import KernelFS, NotDone
from tuned_virt.kernel.systemd import SERVICE
from tuned_virt.kernel.systemd import systemctl as _systemctl

ACTIVE = "active"
INACTIVE = "inactive"

KSM_SERVICE = "ksm.service"
"""Its start writes run=1, its stop run=0."""

UNITS = (KSM_SERVICE, "ksmtuned.service")
"""In the order of starting; stopped in the other (ksmtuned requires ksm)."""

UNIT_FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system")

MASKING_FOLDERS = UNIT_FOLDERS[:2]

OTHERS: Mapping[str, str] = {
    "momd": "MOM",
    "virt-handler": "KubeVirt",
    "harvester-node-": "Harvester",
}
"""Names of processes that set KSM by themselves: oVirt's MOM, KubeVirt's agent and Harvester's node
manager on each node."""

ON_REQUEST: Mapping[str, str] = {
    "virt-handler": "ksmConfiguration",
    "harvester-node-": "a Ksmtuned object with run",
}
"""Those that do so only where the cluster has this for the node."""

QEMU_KVM = "/etc/default/qemu-kvm"
"""What Ubuntu's qemu-kvm.service reads."""


@dataclass(frozen=True)
class KsmConflicts:
    """The services that are installed, with their state; those masked; and who else is there.

    disabled    where an administrator has switched KSM off, besides by masking
    on_request  what `other` has to be configured with to set KSM; "" where it always does
    """

    services: Mapping[str, str] = field(default_factory=dict)
    masked: tuple[str, ...] = ()
    other: str = ""
    disabled: str = ""
    on_request: str = ""

    @property
    def hands_off(self) -> str:
        """Why `mode=auto` leaves KSM alone, "" where nothing speaks against it."""
        if self.masked or self.disabled:
            found = f"{' and '.join(self.masked)} masked" if self.masked else self.disabled
            return f"{found}: an administrator has disabled KSM"
        return f"{self.other} controls KSM" if self.other else ""

    def in_use(self, run: str) -> KsmConflicts:
        """The same where `run` is the original: who sets KSM on request has left it at 0."""
        return replace(self, other="") if self.on_request and run == "0" else self


def read(fs: KernelFS) -> KsmConflicts:
    """Who is there now."""
    masked = tuple(unit for unit in UNITS if _masked(fs, unit))
    installed = [unit for unit in UNITS if unit not in masked and _installed(fs, unit)]
    services = {unit: state(unit) for unit in installed}
    other, on_request = _other(fs)
    return KsmConflicts(services, masked, other, _disabled(fs), on_request)


def _disabled(fs: KernelFS) -> str:
    """The assignment that switches KSM off, and its file; the last one counts, as for a shell."""
    text = fs.read_permitted(QEMU_KVM) or ""
    found = re.findall(r"""^\s*(?:export\s+)?KSM_ENABLED=["']?(\w*)""", text, re.MULTILINE)
    return f"KSM_ENABLED=0 in {QEMU_KVM}" if found[-1:] == ["0"] else ""


def _masked(fs: KernelFS, unit: str) -> bool:
    return any(fs.link(f"{folder}/{unit}") == "/dev/null" for folder in MASKING_FOLDERS)


def _installed(fs: KernelFS, unit: str) -> bool:
    return any(fs.exists(f"{folder}/{unit}") for folder in UNIT_FOLDERS)


def state(unit: str) -> str:
    """Active, also while a start is under way or queued; inactive where systemd does not run.

    Raises NotDone where systemd does not answer.
    """
    try:
        shown = _systemctl("show", "--property=ActiveState", "--property=Job", unit)
    except ToolUnavailable:
        return INACTIVE
    except ToolError as error:
        raise NotDone(unit, f"the state of {unit} is unknown: {error}") from error
    return decide_state(shown)


def decide_state(shown: str) -> str:
    """The state, from what `systemctl show` prints of ActiveState and Job (none: absent, or 0)."""
    properties = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    found = properties.get("ActiveState", "")
    queued = properties.get("Job", "0") not in ("", "0")
    if found in (ACTIVE, "activating", "reloading") or (found == INACTIVE and queued):
        return ACTIVE
    return INACTIVE


def _other(fs: KernelFS) -> tuple[str, str]:
    """Who else is there, those first that always set KSM; and what makes it do so."""
    found = procfs.by_name(fs, OTHERS)
    for comm in sorted(found, key=lambda comm: comm in ON_REQUEST):
        name = f"{OTHERS[comm]} (process {comm}, {found[comm][-1]})"
        return name, ON_REQUEST.get(comm, "")
    return "", ""


def set_state(unit: str, wanted: str) -> None:
    """Start or stop a service. Raises NotDone.

    While systemd stops TuneD, which is ordered after these services, a start is only queued: it
    waits for TuneD's end, and TuneD must not wait for it.
    """
    verb = "stop" if wanted == INACTIVE else "start"
    try:
        queued = verb == "start" and _stopping()
        _systemctl(verb, *(["--no-block"] if queued else []), unit)
    except ToolError as error:
        raise NotDone(unit, f"systemctl {verb} {unit}: {error}", wanted) from error
    found = state(unit)
    if found != wanted:
        raise NotDone(unit, f"{unit} is {found} after systemctl {verb}", wanted)


def _stopping() -> bool:
    return _systemctl("show", "--property=ActiveState", SERVICE) == "ActiveState=deactivating"
