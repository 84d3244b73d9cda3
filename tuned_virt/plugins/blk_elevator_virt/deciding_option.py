# SPDX-License-Identifier: GPL-2.0-or-later
"""Which option of a section decides on a disk, by its class. Pure."""

from __future__ import annotations

from tuned_virt.plugins.blk_elevator_virt.classify import NVME, PARAVIRTUAL, SCSI
from tuned_virt.plugins.blk_elevator_virt.state import Disk


def host_class(disk: Disk, backing: str) -> tuple[str, str]:
    """The option that decides on a host's disk, and why."""
    kind = disk.attached.kind
    if kind in NVME:
        return "host_nvme", kind.value
    if kind in SCSI and backing:
        return "host_backing", f"{kind.value}, {backing}"
    return "host_other", f"{kind.value}, backs no guest" if kind in SCSI else kind.value


def guest_class(disk: Disk) -> tuple[str, str]:
    """The option that decides on a guest's disk, and why."""
    kind, emulated = disk.attached.kind, disk.attached.emulated
    if kind in NVME:
        return "guest_nvme", kind.value
    if kind in PARAVIRTUAL:
        return "guest_virtio", kind.value
    if kind in SCSI:
        if emulated:
            return "guest_emulated", f"emulated {kind.value}"
        return "guest_passthrough", kind.value
    return "guest_other", kind.value
