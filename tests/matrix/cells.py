# SPDX-License-Identifier: GPL-2.0-or-later
"""The matrix: a cell is one kernel with one TuneD, one version of cgroups and one NUMA topology.

The full product has 54 cells, which is hours. `covering` has nine, in which each value of each
factor meets each value of every other one: an orthogonal array of three factors of three values
(kernel, TuneD, nodes) whose fourth column says which of its cells have cgroup v1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from fnmatch import fnmatchcase

KERNELS = ("6.1", "6.12", "7")
"""As tests/vm/boot.py knows them; the last is the newest that Debian's archive has."""

TUNEDS = ("2.20", "2.25", "latest")
"""As tests/sandbox.py knows them."""

CGROUPS = ("v1", "v2")
NODES = ("1", "2", "4")

FACTORS = (KERNELS, TUNEDS, CGROUPS, NODES)

ALL_PAIRS, CORNER = "pairs", "6.12/2.25/v2/2"
"""What is run by default, as `chosen` takes it; what CI runs."""

SUITES = {"2.20": "bookworm", "2.25": "trixie", "latest": "sid"}
"""TuneD → the Debian release that has it, whose systemd, libvirt and QEMU are then there too."""

LAST_WITH_V1 = "trixie"
"""systemd 258 removed cgroup v1 (its NEWS); Debian 13 has 257."""


@dataclass(frozen=True)
class Cell:
    """One machine to be booted; its text is KERNEL/TUNED/CGROUP/NODES."""

    kernel: str
    tuned: str
    cgroup: str
    nodes: str

    def __str__(self) -> str:
        return "/".join(astuple(self))

    @property
    def suite(self) -> str:
        """Debian release of all but kernel and TuneD.

        TuneD's own, or the last whose systemd has the cell's cgroups.
        """
        return LAST_WITH_V1 if self.cgroup == "v1" and self.tuned == "latest" else self.own_suite

    @property
    def own_suite(self) -> str:
        """Debian release of the cell's TuneD."""
        return SUITES[self.tuned]

    @property
    def remark(self) -> str:
        """What is otherwise in this cell than its name says; empty for most."""
        remarks = []
        if self.suite != self.own_suite:
            remarks.append(f"on {self.suite}: systemd 258 and later have no cgroup v1")
        if self.cgroup == "v1" and self.kernel != "6.1":
            remarks.append("Debian's kernel has no memory and no cpuset controller of cgroup v1")
        return "; ".join(remarks)


def every() -> list[Cell]:
    """The full product."""
    return [Cell(*values) for values in itertools.product(*FACTORS)]


def covering() -> list[Cell]:
    """Nine cells in which all pairs of values meet."""
    size = len(KERNELS)
    return [
        Cell(
            KERNELS[kernel],
            TUNEDS[tuned],
            "v1" if (kernel + 2 * tuned) % size == 0 else "v2",
            NODES[(kernel + tuned) % size],
        )
        for kernel in range(size)
        for tuned in range(size)
    ]


def pairs(cells: Iterable[Cell]) -> set[tuple[tuple[int, str], ...]]:
    """All pairs of values of two factors, a factor by its place, that meet in some cell."""
    return {
        pair
        for cell in cells
        for pair in itertools.combinations(tuple(enumerate(astuple(cell))), 2)
    }


def chosen(text: str) -> Sequence[Cell]:
    """The cells that a text names: `pairs`, `corner`, or patterns such as `*/2.25/v2/4`.

    Raises ValueError for a pattern that no cell has.
    """
    found: list[Cell] = []
    for word in text.split():
        if word == ALL_PAIRS:
            found += covering()
            continue
        pattern = CORNER if word == "corner" else word
        matching = [cell for cell in every() if fnmatchcase(str(cell), pattern)]
        if not matching:
            raise ValueError(f"CELLS: {word} is no cell; one is {CORNER}, with * for any value")
        found += matching
    return list(dict.fromkeys(found))
