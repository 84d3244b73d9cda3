# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine is in its fleet: a guest itself, or a host whose guests another manager places."""

from __future__ import annotations

from collections.abc import Mapping

from tuned_virt.cli.collected import HostRole
from tuned_virt.kernel import swap, systemd
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.model.host_facts import Fact

MANAGERS: Mapping[str, str] = {
    "/etc/pve": "Proxmox VE",
    "/etc/vdsm/vdsm.conf": "oVirt",
    "/etc/nova/nova-compute.conf": "OpenStack Nova",
    "/etc/kolla/nova-compute": "OpenStack Nova",
    "/var/lib/openstack/config/nova": "OpenStack Nova",
    "/var/run/kubevirt": "KubeVirt",
}
"""What only a host has whose guests somebody places: also one without a guest yet."""


def read(fs: KernelFS) -> HostRole:
    """This machine's."""
    manager = next((name for path, name in MANAGERS.items() if fs.exists(path)), "")
    return HostRole(_in_guest(fs), manager, _swap_in_ram(fs))


def _in_guest(fs: KernelFS) -> Fact[bool]:
    try:
        return Fact(systemd.role(fs) == "guest", "")
    except systemd.RoleUnknown as error:
        return Fact(None, str(error))


def _swap_in_ram(fs: KernelFS) -> Fact[bool]:
    try:
        return Fact(swap.swappiness(fs, "") == swap.IN_MEMORY, "")
    except (KernelFileError, ValueError) as error:
        return Fact(None, str(error))
