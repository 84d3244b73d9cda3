# SPDX-License-Identifier: GPL-2.0-or-later
"""I/O weights that systemd has been given for libvirt's guests, and what BFQ gets of them.

libvirt passes a guest's weight to systemd (IOWeight=, with cgroup v1 BlockIOWeight=) and reads it
from io.bfq.weight (blkio.bfq.weight), for which systemd scales it: its range of 1 to 10000 to BFQ's
of 1 to 1000 (systemd issues 22897 and 27622). So 500 reads as 136. What was given has io.weight,
which systemd writes too; with cgroup v1 its own file of the unit's property alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tuned_virt.kernel.files import KernelFileError, KernelFS

SCOPES = r"/sys/fs/cgroup/*.slice/machine-qemu\x2d*.scope"
PROPERTIES = r"/run/systemd/transient/machine-qemu\x2d*.scope.d"
RUN = re.compile(r"/machine-qemu\\x2d(\d+)\\x2d[^/]*\.scope(?:\.d)?$")

DEFAULT, MOST, BFQ_MOST = 100, 10_000, 1_000


def of_guests(fs: KernelFS) -> Mapping[int, int]:
    """Weight given to systemd by libvirt's number of a guest's run; those it was given one for.

    Empty where that cannot be read.
    """
    try:
        return {
            **_found(fs, PROPERTIES, "50-BlockIOWeight.conf", r"(?m)^BlockIOWeight=(\d{1,5})$"),
            **_found(fs, SCOPES, "io.weight", r"default (\d{1,5})\b"),
        }
    except KernelFileError:
        return {}


def _found(fs: KernelFS, folders: str, file: str, pattern: str) -> dict[int, int]:
    found = {}
    for folder in fs.glob(folders):
        run = RUN.search(folder)
        weight = re.search(pattern, fs.read_optional(f"{folder}/{file}") or "")
        if run and weight:
            found[int(run[1])] = int(weight[1])
    return found


def bfq(weight: int) -> int:
    """What systemd writes to io.bfq.weight for a weight (BFQ_WEIGHT in its cgroup-util.h)."""
    if weight <= DEFAULT:
        return weight
    return DEFAULT + (weight - DEFAULT) * (BFQ_MOST - DEFAULT) // (MOST - DEFAULT)


def given(read: int, by_systemd: int | None) -> int:
    """The weight that libvirt was given where it reads this one.

    `by_systemd` is what systemd has, None if nothing. What does not follow from it was written by
    somebody else, and is as it reads.
    """
    return by_systemd if by_systemd is not None and read == bfq(by_systemd) else read
