# SPDX-License-Identifier: GPL-2.0-or-later
"""What `tuned-virt recommend` looks at: this host with its guests and their use, or files."""

from __future__ import annotations

from collections.abc import Mapping

from tuned_virt.audit.scene import Scene
from tuned_virt.cli import audit_input, guests
from tuned_virt.cli.audit_input import AuditInput
from tuned_virt.cli.common import CouldNot
from tuned_virt.kernel import swap, systemd
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.model import host_facts, topology
from tuned_virt.model.host_facts import Fact
from tuned_virt.model.topology import HostError
from tuned_virt.recommend.situation import Situation

MANAGERS: Mapping[str, str] = {
    "/etc/pve": "Proxmox VE",
    "/etc/vdsm/vdsm.conf": "oVirt",
    "/etc/nova/nova-compute.conf": "OpenStack Nova",
    "/etc/kolla/nova-compute": "OpenStack Nova",
    "/var/lib/openstack/config/nova": "OpenStack Nova",
    "/var/run/kubevirt": "KubeVirt",
}
"""What only a host has whose guests somebody places: also one without a guest yet."""

HOST_MISSING = "which host is it for? give --host CAPABILITIES.xml (virsh capabilities)"


def gather(capabilities: str | None, files: list[str], saved: str | None) -> Situation:
    """Files where any are given, else this machine. Raises CouldNot for what it cannot read."""
    if not (capabilities or files or saved):
        return here(KernelFS())
    if files and not capabilities and not saved:
        raise CouldNot(HOST_MISSING)
    return Situation(_whole(audit_input.gather(capabilities, files, saved)))


def here(fs: KernelFS) -> Situation:
    """This machine. Raises CouldNot."""
    ram = _swap_in_ram(fs)
    if _is_guest(fs):
        return Situation(_inside(fs), in_guest=True, swap_in_ram=ram)
    manager = next((name for path, name in MANAGERS.items() if fs.exists(path)), "")
    if manager:
        return Situation(Scene(), manager=manager)
    return Situation(
        _whole(audit_input.here(fs)),
        swap_in_ram=ram,
        delays=_delays(fs),
    )


def _whole(gathered: AuditInput) -> Scene:
    """A scene of which all was read: settings for half of the guests serve nobody."""
    unreadable = [f"{name}: {why}" for name, why in gathered.unreadable]
    foreign = [f"{name}: {why}" for name, why in gathered.others]
    if unreadable:
        raise CouldNot("nothing is recommended for what cannot be read\n" + "\n".join(unreadable))
    if gathered.scene.host is None:
        raise CouldNot("this host's CPUs and memory cannot be read, so nothing is recommended")
    if foreign and not gathered.scene.guests:
        raise CouldNot("none of the guests is a KVM guest\n" + "\n".join(foreign))
    return gathered.scene


def _is_guest(fs: KernelFS) -> bool:
    """Raises CouldNot where systemd-detect-virt cannot be asked."""
    try:
        return systemd.role(fs) == "guest"
    except systemd.RoleUnknown as error:
        raise CouldNot(f"whether this machine is a guest cannot be told: {error}") from error


def _inside(fs: KernelFS) -> Scene:
    try:
        return Scene(topology.read(fs), host_facts.read(fs))
    except HostError as error:
        raise CouldNot(f"this machine's CPUs and memory cannot be read: {error}") from error


def _swap_in_ram(fs: KernelFS) -> Fact[bool]:
    try:
        return Fact(swap.swappiness(fs, "") == swap.IN_MEMORY, "")
    except (KernelFileError, ValueError) as error:
        return Fact(None, str(error))


def _delays(fs: KernelFS) -> Mapping[str, float]:
    """Of running guests, by UUID; those that cannot be read are not in it."""
    look = guests.Look(fs, None)
    look.take(guests.SAMPLE)
    return {row.uuid: row.delay_percent for row in look.rows if row.delay_percent is not None}
