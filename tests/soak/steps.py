# SPDX-License-Identifier: GPL-2.0-or-later
"""Which step comes next: by a seed alone, so that a run can be repeated. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

PROFILES = ("all", "other", "virtual-host-plus")
"""Between which a run switches."""

GUESTS = tuple(f"churn{number}" for number in range(1, 5))
DISKS = tuple(range(4002, 4006))
"""Guests and loop devices that come and go."""

WEIGHTS = {
    "switch": 30,
    "off": 20,
    "verify": 8,
    "start guest": 14,
    "stop guest": 8,
    "pause guest": 3,
    "resume guest": 3,
    "add disk": 4,
    "remove disk": 3,
    "pressure": 3,
    "drift": 4,
    "kill tuned": 6,
    "terminate tuned": 3,
    "start tuned": 30,
    "reload tuned": 3,
    "kill libvirtd": 4,
    "start libvirtd": 20,
    "hang libvirtd": 3,
    "restore": 8,
    "few descriptors": 3,
    "little memory": 2,
}
"""How often a step is taken among those that are possible."""


@dataclass(frozen=True)
class Step:
    """One step, and the profile, guest or disk that it is about, or ""."""

    kind: str
    about: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.about}".strip()


@dataclass
class Course:
    """What the steps so far have made of the machine; the steps to come."""

    seed: int
    tuned: bool = True
    libvirtd: bool = True
    profile: str = ""
    guests: set[str] = field(default_factory=set)
    paused: set[str] = field(default_factory=set)
    disks: set[int] = field(default_factory=set)

    def steps(self) -> Iterator[Step]:
        """Without end."""
        chance = random.Random(self.seed)
        while True:
            possible = self._possible()
            kinds = sorted({step.kind for step in possible})
            [kind] = chance.choices(kinds, [WEIGHTS[kind] for kind in kinds])
            step = chance.choice([one for one in possible if one.kind == kind])
            self._take(step)
            yield step

    def _possible(self) -> list[Step]:
        found = [Step("pressure"), Step("restore")]
        found += self._of_tuned() if self.tuned else [Step("start tuned")]
        found += self._of_libvirtd() if self.libvirtd else [Step("start libvirtd")]
        found += [Step("add disk", str(one)) for one in DISKS if one not in self.disks]
        found += [Step("remove disk", str(one)) for one in sorted(self.disks)]
        return found

    def _of_tuned(self) -> list[Step]:
        found = [Step("switch", one) for one in PROFILES]
        found += [Step("kill tuned"), Step("terminate tuned"), Step("few descriptors")]
        found += [Step("little memory"), Step("off")]
        if self.profile:
            found += [Step("verify"), Step("reload tuned"), Step("drift")]
        return found

    def _of_libvirtd(self) -> list[Step]:
        found = [Step("kill libvirtd"), Step("hang libvirtd")]
        found += [Step("start guest", one) for one in GUESTS if one not in self.guests]
        found += [Step("stop guest", one) for one in sorted(self.guests)]
        found += [Step("pause guest", one) for one in sorted(self.guests - self.paused)]
        found += [Step("resume guest", one) for one in sorted(self.paused)]
        return found

    def _take(self, step: Step) -> None:
        kind, about = step.kind, step.about
        if kind == "switch":
            self.profile = about
        elif kind in ("off", "few descriptors", "little memory"):
            self.profile = ""
        elif kind == "restore":
            self.profile = self.profile if self.tuned else ""
        elif kind in ("kill tuned", "terminate tuned", "start tuned"):
            self.tuned = kind == "start tuned"
        elif kind in ("kill libvirtd", "start libvirtd"):
            self.libvirtd = kind == "start libvirtd"
        elif kind.endswith(" guest"):
            self._guest(kind, about)
        elif kind == "add disk":
            self.disks.add(int(about))
        elif kind == "remove disk":
            self.disks.discard(int(about))

    def _guest(self, kind: str, name: str) -> None:
        if kind == "start guest":
            self.guests.add(name)
        elif kind == "stop guest":
            self.guests.discard(name)
        if kind == "pause guest":
            self.paused.add(name)
        else:
            self.paused.discard(name)
