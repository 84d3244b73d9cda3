# SPDX-License-Identifier: GPL-2.0-or-later
"""kernel.numa_balancing: the neighbour that moves pages after threads by itself.

It marks pages not present to learn who uses them (Documentation/admin-guide/sysctl/kernel.rst): a
guest that is pinned where its memory is pays for that and gains nothing; one that floats over nodes
gains. So it is left alone unless the administrator decides.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals, OriginalsError
from tuned_virt.core.plan import Change, Values
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.plugins.vm_pinning.policy import PinningPolicy

log = logging.getLogger("tuned")

SETTING = "kernel.numa_balancing"
FILE = "/proc/sys/kernel/numa_balancing"
PLUGIN = "vm_pinning"


def values(fs: KernelFS) -> Values:
    """What the kernel has; empty in one without it."""
    text = fs.read_optional(FILE)
    return {} if text is None else {SETTING: text}


def asked(policies: Iterable[PinningPolicy]) -> int | None:
    """What the first policy that has a word on it asks for; None where none has."""
    wishes = (one.balancing for one in policies)
    return next((wish for wish in wishes if wish is not None), None)


def set_to(wanted: int | None, fs: KernelFS, originals: Originals, journal: Journal) -> bool:
    """Have the kernel do as asked, or as before where nobody asks; False for an error, said."""
    try:
        now = values(fs).get(SETTING)
        kept = originals.record(PLUGIN).originals.get(SETTING)
        target = kept if wanted is None else str(wanted)
        if now is None or target is None:
            return True
        if wanted is not None:
            originals.keep(PLUGIN, {SETTING: now})
        if target != now:
            with originals.writing(PLUGIN):
                fs.write(FILE, target)
            why = "put back" if wanted is None else "set by numa_balancing="
            change = Change(SETTING, FILE, now, target, why)
            journal.add(PLUGIN, change)
            log.info("%s: %s", PLUGIN, change)
        if wanted is None:
            originals.forget(PLUGIN, [SETTING])
    except (KernelFileError, OriginalsError) as error:
        log.error("%s: %s", PLUGIN, error)
        return False
    return True
