# SPDX-License-Identifier: GPL-2.0-or-later
"""perf's command lines for one guest (perf-kvm(1); the guide's section 2.2)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import Enum

KALLSYMS, MODULES = "kallsyms", "modules"
"""Names of the files that the guest's are kept as."""


class PerfAction(str, Enum):
    """What perf kvm is to do."""

    RECORD = "record"
    TOP = "top"
    REPORT = "report"
    STAT = "stat"
    STAT_RECORD = "stat-record"
    STAT_REPORT = "stat-report"

    @property
    def counts_exits(self) -> bool:
        """It analyses exits from guests by the host's tracepoints: no guest's symbols are used."""
        return self in (PerfAction.STAT, PerfAction.STAT_RECORD, PerfAction.STAT_REPORT)

    @property
    def samples(self) -> bool:
        """It looks at the running guest, not at what was recorded."""
        return self not in (PerfAction.REPORT, PerfAction.STAT_REPORT)


STATISTICS = {
    PerfAction.STAT: ("stat", "live"),
    PerfAction.STAT_RECORD: ("stat", "record"),
    PerfAction.STAT_REPORT: ("stat", "report"),
}


def copied(folder: str) -> tuple[str, str]:
    """Where perf finds the guest's symbols: copies of its files in a folder."""
    return (
        f"--guestkallsyms={os.path.join(folder, KALLSYMS)}",
        f"--guestmodules={os.path.join(folder, MODULES)}",
    )


def mounted(folder: str) -> tuple[str]:
    """The same: a folder in which the guest's root has its process's number as its name."""
    return (f"--guestmount={folder}",)


def command(
    action: PerfAction, symbols: Sequence[str], pid: int | None, passed_on: Sequence[str]
) -> list[str]:
    """The argument vector.

    symbols    of `copied` or `mounted`; not used for exits
    pid        the guest's process: its samples alone, for the symbols are of no other guest
    passed_on  the user's own options of perf, after all others
    """
    what = STATISTICS.get(action, (action.value,))
    where = () if action.counts_exits else ("--host", "--guest", *symbols)
    whose = ("--pid", str(pid)) if action.samples else ()
    return ["perf", "kvm", *where, *what, *whose, *passed_on]
