"""Sets of CPUs or nodes as the kernel writes them ("0-3,8"), and back."""

from __future__ import annotations

import re
from collections.abc import Iterable


def parse(text: str) -> frozenset[int]:
    """The numbers of a list such as "0-3,8"; empty for "". Raises ValueError for anything else."""
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part, re.ASCII)
        if not found:
            raise ValueError(f"'{part}' is no number or range of numbers")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise ValueError(f"'{part}' runs backwards")
        numbers.update(range(first, last + 1))
    return frozenset(numbers)


def text(numbers: Iterable[int]) -> str:
    """The shortest such list, in order."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
