# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits of QEMU's machine types that matter to placement."""

from __future__ import annotations

import re
from collections.abc import Iterator

I440FX_VCPUS = 255
"""See QEMU: hw/i386/pc_piix.c (max_cpus)."""

WITHOUT_NUMA = ("isapc", "microvm")
"""Machine types that offer the guest no NUMA cells; s390x has none either."""


def notes(arch: str, machine: str, vcpus: int) -> Iterator[str]:
    """What an administrator should know of a guest's machine type."""
    if re.fullmatch(r"pc(-i440fx-.*)?|pc-0\..*|rhel6\..*", machine) and arch in {"x86_64", "i686"}:
        if vcpus > I440FX_VCPUS:
            yield f"machine {machine} takes at most {I440FX_VCPUS} vCPUs"
    elif "q35" in machine and vcpus > I440FX_VCPUS:
        yield f"more than {I440FX_VCPUS} vCPUs need an IOMMU with eim='on' in the guest"
    if machine in WITHOUT_NUMA or arch == "s390x":
        yield (
            f"{machine or arch} has no NUMA cells for guests: the guest cannot see where its"
            " memory is"
        )
