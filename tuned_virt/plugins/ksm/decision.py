# SPDX-License-Identifier: GPL-2.0-or-later
"""What each algorithm sees and says: a sample of the machine, its own memory, a decision.

An algorithm is a pure function `decide(policy, sample, memory) -> Decision`. It has no clock and no
files: controller.py samples, carries out the changes, and hands the memory back.
"""

from __future__ import annotations

from enum import Enum

from tuned_virt.core.plan import Values
from tuned_virt.frozen_dataclasses import dataclass, replace
from tuned_virt.model import topology

CONTROLLED = ("pages_to_scan", "sleep_millisecs", "run")
"""The settings that an algorithm may change, in the order of writing."""


@dataclass(frozen=True)
class Sample:
    """The machine at one moment.

    now             seconds, monotonic
    cpus            online CPUs
    total, free, available  KiB: MemTotal; MemFree + Buffers + Cached; MemAvailable
    committed       KiB that the guests may come to use; auto leaves out those whose memory KSM does
                    not merge
    unmergeable     KiB in pools of huge pages, and of guests in shared memory or with nosharepages
    reclaimable     KiB of caches that MemAvailable does not count: ZFS's ARC over its minimum
    resident        KiB that the guests' processes have now, merged pages counted each time
    guests          name and identity of each running guest
    pressure        PSI: percent of the last 10 s in which some task waited for memory; None without
    settings        the CONTROLLED settings as the kernel has them
    cpu             seconds that ksmd has used since boot; None where it is not to be seen
    scanned         pages scanned since boot; None in kernels that do not count them
    full_scans      times that all mergeable memory was scanned
    merged          pages that merging saves (pages_sharing + ksm_zero_pages)
    known           mergeable pages that ksmd has seen (shared, sharing, unshared, volatile)
    """

    now: float
    total: int
    available: int
    settings: Values
    cpus: int = 8
    free: int = 0
    committed: int = 0
    unmergeable: int = 0
    reclaimable: int = 0
    resident: int = 0
    guests: frozenset[str] = frozenset()
    pressure: float | None = None
    cpu: float | None = None
    scanned: int | None = None
    full_scans: int = 0
    merged: int = 0
    known: int = 0

    @property
    def mergeable_total(self) -> int:
        """KiB that merging can make a difference to."""
        return max(self.total - self.unmergeable, 0)

    @property
    def obtainable(self) -> int:
        """KiB that programs can have without swapping."""
        return self.available + self.reclaimable


class Phase(str, Enum):
    """What an algorithm is doing."""

    IDLE = "idle"
    BURST = "burst"
    MAINTENANCE = "maintenance"
    STEADY = "steady"
    YIELDED = "not managing KSM"

    @classmethod
    def _missing_(cls, value: object) -> Phase | None:
        """The word that a state file of version 0.1 has."""
        return cls.YIELDED if value == "hands off" else None


@dataclass(frozen=True)
class Counters:
    """The counters at a moment, to see what has come since."""

    now: float = 0.0
    cpu: float = 0.0
    scanned: int = 0
    full_scans: int = 0
    merged: int = 0


@dataclass(frozen=True)
class ControllerMemory:
    """What an algorithm remembers from one sample to the next; survives a restart of TuneD as JSON.

    phase, since    the phase and when it began
    written         the settings as the algorithm wrote them last
    insisted        when a value changed by another program was last set again
    contested       settings that somebody else has changed, with the value found
    guests          those of the last sample
    resident        KiB that the guests had when the last two scans of a burst began: what they
                    had at the first has been scanned twice, and so been merged
    short           whether memory was short
    relaxed         since when it has been plentiful; None while it is not
    pressed         whether tasks waited for memory (PSI)
    cost            CPU seconds a scanned page
    begun           the counters when the phase began
    judged, last    the same at the last judgement, and at the last sample
    fresh           the burst began with nothing scanned before
    scan            pages of the burst's last full scan
    spent           (now, CPU seconds used in the interval before), of the last minute
    dry             looks in a row at which the trickle found nothing
    dear            bursts in a row that moving pages began and that did not pay
    rest            seconds of the next rest between looks at plentiful memory
    npages          ksmtuned's pages a batch
    """

    phase: Phase = Phase.IDLE
    since: float = 0.0
    written: tuple[tuple[str, str], ...] = ()
    insisted: float | None = None
    contested: tuple[tuple[str, str], ...] = ()
    guests: frozenset[str] = frozenset()
    resident: tuple[int, int] = (0, 0)
    short: bool = False
    relaxed: float | None = None
    pressed: bool = False
    cost: float = 0.0
    begun: Counters = Counters()
    judged: Counters = Counters()
    last: Counters | None = None
    fresh: bool = False
    scan: int = 0
    spent: tuple[tuple[float, float], ...] = ()
    dry: int = 0
    dear: int = 0
    rest: float = 0.0
    npages: int = 0


@dataclass(frozen=True)
class Decision:
    """What to write now, in this order; why, in words; what to remember; seconds to the next look.

    `noted` are remarks to log as warnings.
    """

    changes: Values
    why: str
    memory: ControllerMemory
    next_look: float
    noted: tuple[str, ...] = ()


INSIST = 60.0
"""Seconds between attempts to set again what somebody else has changed."""


def changes_towards(
    wanted: Values, sample: Sample, memory: ControllerMemory
) -> tuple[Values, ControllerMemory, list[str]]:
    """The changes from the sample's settings to the wanted ones, and remarks on foreign changes.

    A value that is not the one written last is somebody else's: it is said when it is first seen,
    and set again at most once in INSIST seconds.
    """
    written = dict(memory.written)
    foreign = {
        name: sample.settings[name]
        for name, value in written.items()
        if sample.settings.get(name, value) != value
    }
    noted = [
        f"{name} is '{found}', not '{written[name]}': changed by another program"
        for name, found in foreign.items()
        if (name, found) not in memory.contested
    ]
    may_insist = memory.insisted is None or sample.now - memory.insisted >= INSIST
    changes = {
        name: wanted[name]
        for name in CONTROLLED
        if name in wanted
        and sample.settings.get(name) != wanted[name]
        and (name not in foreign or may_insist)
    }
    insisted = sample.now if foreign.keys() & changes.keys() else memory.insisted
    remembered = replace(
        memory,
        written=tuple({**written, **{name: wanted[name] for name in wanted}}.items()),
        contested=tuple(foreign.items()),
        insisted=insisted,
    )
    return changes, remembered, noted


def mib(kib: float) -> str:
    """KiB in words."""
    return f"{kib / 1024:.0f} MiB"


def mib_of(pages: int) -> str:
    """Pages in words."""
    return mib(pages * topology.page_size() / 1024)
