# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the vCPUs of all of libvirt's guests may run now, whoever has pinned them.

A thousand guests in some 13 ms: their threads are in libvirt's own files of state (its
qemuDomainObjPrivateXMLFormatVcpus), and where those may run the kernel says. libvirt itself is not
asked: it waits for the answer while it starts a guest.
"""

from __future__ import annotations

import re
from itertools import chain

from tuned_virt.kernel import affinity
from tuned_virt.kernel.files import KernelFileAbsent, KernelFileError, KernelFS
from tuned_virt.numad.advice import Guests, Running

STATE = "/run/libvirt/qemu"
"""Where libvirt's QEMU driver has a file of state for each guest that runs, for root alone."""

VCPU = re.compile(rb"<vcpu id='\d+' pid='(\d{1,9})'/>")
END = b"</vcpus>"
USUAL = 1 << 12
"""Bytes in which a file of state has its vCPUs, up to some 90 of them."""


def read(fs: KernelFS) -> tuple[Guests, str]:
    """The guests; and why some are missing."""
    guests: list[list[int]] = []
    missing = ""
    try:
        for name in fs.names(STATE):
            try:
                guests += [_threads(fs, f"{STATE}/{name}")] if name.endswith(".xml") else []
            except KernelFileAbsent:
                continue  # it has ended
            except KernelFileError as error:
                missing = missing or str(error)
    except KernelFileError as error:
        missing = str(error)
    masks = dict(affinity.masks(chain.from_iterable(guests)))
    running = [[thread for thread in threads if thread in masks] for threads in guests]
    found = [Running(one[0], tuple(masks[each] for each in one)) for one in running if one]
    return Guests(found, guests.count([])), missing


def _threads(fs: KernelFS, path: str) -> list[int]:
    text = fs.beginning(path, USUAL)
    if END not in text:
        text = fs.read(path).encode()
    return list(map(int, VCPU.findall(text.partition(END)[0])))
