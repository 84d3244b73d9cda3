# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a guest's threads and memory are, or should be: one CPU set a target.

libvirt's hook imports this at each migration, so it needs nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple


class Part(str, Enum):
    """Parts of a guest that are pinned, by their names in messages."""

    VCPU = "vCPU"
    IOTHREAD = "IOThread"
    EMULATOR = "emulator"
    MEMORY = "memory"


class Target(NamedTuple):
    """One vCPU or IOThread by its number; the emulator, or the memory."""

    part: Part
    number: int = 0

    def __str__(self) -> str:
        numbered = self.part in (Part.VCPU, Part.IOTHREAD)
        return f"{self.part.value} {self.number}" if numbered else self.part.value


EMULATOR, MEMORY = Target(Part.EMULATOR), Target(Part.MEMORY)


class Pins(Mapping[Target, str]):
    """CPU set by target; memory's is "mode=nodeset", as "strict=0-1". What is absent is not set."""

    def __init__(
        self,
        vcpus: Mapping[int, str] | None = None,
        emulator: str | None = None,
        iothreads: Mapping[int, str] | None = None,
        memory: tuple[str, str] | None = None,
    ) -> None:
        self._sets = {
            **{Target(Part.VCPU, number): cpus for number, cpus in (vcpus or {}).items()},
            EMULATOR: emulator or "",
            **{Target(Part.IOTHREAD, number): cpus for number, cpus in (iothreads or {}).items()},
            MEMORY: "=".join(memory) if memory else "",
        }
        self._sets = {target: cpus for target, cpus in self._sets.items() if cpus}

    @staticmethod
    def of(sets: Iterable[tuple[Target, str]]) -> Pins:
        """Pins by target; empty sets are left out."""
        pins = Pins()
        pins._sets = {target: cpus for target, cpus in sets if cpus}
        return pins

    def __getitem__(self, target: Target) -> str:
        return self._sets[target]

    def __iter__(self) -> Iterator[Target]:
        return iter(self._sets)

    def __len__(self) -> int:
        return len(self._sets)

    def __repr__(self) -> str:
        return f"Pins({', '.join(f'{target}: {cpus}' for target, cpus in self.items())})"

    def numbered(self, part: Part) -> dict[int, str]:
        """CPU sets of a part's targets by number."""
        return {target.number: cpus for target, cpus in self.items() if target.part is part}

    @property
    def vcpus(self) -> dict[int, str]:
        """By vCPU."""
        return self.numbered(Part.VCPU)

    @property
    def iothreads(self) -> dict[int, str]:
        """By IOThread."""
        return self.numbered(Part.IOTHREAD)

    @property
    def emulator(self) -> str:
        """The emulator's; "" where there is none."""
        return self.get(EMULATOR, "")

    @property
    def memory(self) -> tuple[str, str] | None:
        """Mode and nodeset; None where there is none."""
        mode, _, nodes = self.get(MEMORY, "").partition("=")
        return (mode, nodes) if mode else None

    def among(self, candidates: Iterable[Pins]) -> Pins:
        """Those that have the value which one of the candidates has."""
        known = [candidate.items() for candidate in candidates]
        return Pins.of(pin for pin in self.items() if any(pin in some for some in known))

    def without(self, others: Pins) -> Pins:
        """Those that are not among others."""
        return Pins.of(pin for pin in self.items() if pin not in others.items())

    def over(self, others: Pins) -> Pins:
        """These, and of others those whose targets these do not have."""
        return Pins.of({**others, **self}.items())

    def to_json(self) -> dict[str, Any]:
        """As files on disk have it."""
        return {
            "vcpus": self.vcpus,
            "emulator": self.emulator or None,
            "iothreads": self.iothreads,
            "memory": self.memory,
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Pins:
        """What `to_json` made. Raises KeyError, TypeError, ValueError or AttributeError."""
        memory, emulator = content["memory"], content["emulator"]
        if not isinstance(emulator, (str, type(None))):
            raise TypeError("the emulator's CPUs are not text")
        if memory and not (memory[0].isalpha() and isinstance(memory[1], str)):
            raise ValueError("its memory has no mode of <numatune>")
        return Pins(
            numbered(content["vcpus"]),
            emulator,
            numbered(content["iothreads"]),
            (memory[0], memory[1]) if memory else None,
        )


def numbered(content: Mapping[str, Any]) -> dict[int, str]:
    """CPU sets by number, of JSON. Raises ValueError, TypeError or AttributeError."""
    return {int(number): str(cpus) for number, cpus in content.items()}
