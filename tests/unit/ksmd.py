# SPDX-License-Identifier: GPL-2.0-or-later
"""A ksmd in miniature: what its counters do at a given speed. The real one is the system tier's.

Pages are merged in the second scan that sees them, as in mm/ksm.c.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tuned_virt.plugins.ksm.controller import decide
from tuned_virt.plugins.ksm.decision import ControllerMemory, Decision, Sample

MIB = 256
"""Pages."""


@dataclass
class Share:
    """Pages of one guest: how many there are, how many of them have a twin, times scanned."""

    pages: int
    alike: float
    seen: int = 0


@dataclass
class Machine:
    """A host with its ksmd; `run_for` lets an algorithm drive it."""

    total: int = 64 << 20
    available: int = 60 << 20
    committed: int = 0
    cpus: int = 8
    cost: float = 4e-6
    counts_pages: bool = True
    shows_cpu: bool = True
    now: float = 1000.0
    settings: dict[str, str] = field(
        default_factory=lambda: {"run": "0", "pages_to_scan": "100", "sleep_millisecs": "20"}
    )
    guests: dict[str, Share] = field(default_factory=dict)
    cpu: float = 50.0
    scanned: int = 0
    full_scans: int = 0
    merged: int = 0
    moving: float = 0.0
    cursor: int = 0
    known: int = 0
    log: list[Decision] = field(default_factory=list)
    used: list[tuple[float, float]] = field(default_factory=list)

    def start(self, name: str, mib: int, alike: float) -> None:
        self.guests[name] = Share(mib * MIB, alike)

    def sample(self) -> Sample:
        resident = sum(guest.pages for guest in self.guests.values()) * 4
        return Sample(
            now=self.now,
            total=self.total,
            available=self.available,
            settings=dict(self.settings),
            cpus=self.cpus,
            committed=self.committed or resident,
            resident=resident,
            guests=frozenset(self.guests),
            cpu=self.cpu if self.shows_cpu else None,
            scanned=self.scanned if self.counts_pages else None,
            full_scans=self.full_scans,
            merged=self.merged,
            known=self.known,
        )

    def scan(self, seconds: float) -> None:
        self.now += seconds
        total = sum(guest.pages for guest in self.guests.values())
        self.merged = max(self.merged - int(self.moving * seconds), 0)
        if self.settings["run"] != "1" or not total:
            return
        batch = int(self.settings["pages_to_scan"])
        busy = batch * self.cost
        share = busy / (busy + int(self.settings["sleep_millisecs"]) / 1000)
        self.cpu += share * seconds
        self.used.append((self.now, share * seconds))
        self._advance(int(share * seconds / self.cost), total)

    def _advance(self, pages: int, total: int) -> None:
        self.scanned += pages
        while pages:
            step = min(pages, total - self.cursor)
            ready = sum(g.pages * g.alike for g in self.guests.values() if g.seen >= 1)
            self.merged = min(int(ready), self.merged + int(step * ready / total))
            pages -= step
            self.cursor += step
            self.known = max(self.known, self.cursor)
            if self.cursor >= total:
                self.cursor = 0
                self.full_scans += 1
                self.known = total
                for guest in self.guests.values():
                    guest.seen += 1

    def run_for(  # type: ignore[no-untyped-def]
        self, policy, seconds: float, memory: ControllerMemory | None = None
    ) -> ControllerMemory:
        """Let the algorithm drive for some seconds; its decisions are in `log`."""
        memory = memory or ControllerMemory()
        end = self.now + seconds
        while self.now < end:
            decision = decide(policy, self.sample(), memory)
            self.settings.update(decision.changes)
            memory = decision.memory
            self.log.append(decision)
            left = min(decision.next_look, end - self.now)
            while left > 0:
                self.scan(min(left, 0.25))
                left -= 0.25
        return memory

    def phases(self) -> list[str]:
        """The phases in order, each once until it changes; a burst begun anew is named again."""
        found: list[tuple[str, object]] = []
        for decision in self.log:
            turn = (decision.memory.phase.value, decision.memory.begun)
            if not found or found[-1] != turn:
                found.append(turn)
        return [phase for phase, _ in found]

    def most_in_a_minute(self) -> float:
        """Largest share of one CPU over any 60 s."""
        return max(
            sum(cpu for when, cpu in self.used if end - 60 < when <= end) / 60
            for end, _ in self.used
        )
