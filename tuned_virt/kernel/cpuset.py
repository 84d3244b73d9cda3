# SPDX-License-Identifier: GPL-2.0-or-later
"""Sets of CPUs or nodes as the kernel writes them ("0-3,8"), and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

MOST = 1 << 16
"""Numbers are below this: Linux can have 8,192 CPUs and 1,024 nodes, libvirt 16,384 CPUs."""

LONGEST = 1 << 17
"""Characters of a list that is read: every other one of 16,384 CPUs takes 49,000."""


def parse(text: str) -> frozenset[int]:
    """The numbers of a list such as "0-3,8"; empty for "". Raises ValueError for anything else."""
    ranges = [_range(part) for part in _parts(text)]
    if sum(map(len, ranges)) <= MOST:
        return frozenset().union(*ranges)
    mask = 0
    for some in ranges:
        mask |= _bits(some)
    return frozenset(_numbers(mask))


def parse_or_null(text: str) -> frozenset[int]:
    """The same of a file in which the kernel may write "(null)" for none: nohz_full, where it was
    booted without that parameter. Raises ValueError."""
    return frozenset() if text.strip() == "(null)" else parse(text)


def parse_excluding(text: str) -> frozenset[int]:
    """The same as libvirt writes it: "^6" takes a number out that came before it ("5-7,^6").

    Source: libvirt's virBitmapParse. Raises ValueError.
    """
    if "^" not in text:
        return parse(text)
    mask = 0
    for part in map(str.strip, _parts(text)):
        if part.startswith("^"):
            mask &= ~_bits(_range(part[1:]))
        else:
            mask |= _bits(_range(part))
    return frozenset(_numbers(mask))


def size(text: str) -> int:
    """At most so many numbers has a list, valid or not: to look at before it is read."""
    total = 0
    for first, last in re.findall(r"(\d{1,9})(?:-(\d{1,9}))?", text, re.ASCII):
        total += max(0, int(last or first) - int(first)) + 1
    return total


def parse_mask(text: str) -> frozenset[int]:
    """The numbers of a kernel's hexadecimal mask ("00000001,0000000f"). Raises ValueError."""
    digits = text.strip().replace(",", "")
    if not re.fullmatch(r"[0-9a-fA-F]*", digits) or len(digits) > MOST // 4:
        raise ValueError(f"'{_short(text)}' is not a CPU mask")
    return frozenset(_numbers(int(digits or "0", 16)))


def _parts(text: str) -> list[str]:
    if len(text) > LONGEST:
        raise ValueError(f"'{_short(text)}' is longer than {LONGEST} characters")
    return [part for part in text.strip().split(",") if part]


def _numbers(mask: int) -> Iterator[int]:
    return (number for number, bit in enumerate(reversed(f"{mask:b}")) if bit == "1")


def _bits(some: range) -> int:
    """A range as a mask: a list of many wide ranges costs no more than its length."""
    return (1 << some.stop) - (1 << some.start)


def _range(part: str) -> range:
    found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part, re.ASCII)
    if not found:
        raise ValueError(f"'{_short(part)}' is not a number or a range of numbers")
    first, last = int(found[1]), int(found[2] or found[1])
    if last < first:
        raise ValueError(f"'{part}' runs backwards")
    if last >= MOST:
        raise ValueError(f"'{part}' goes beyond {MOST - 1}")
    return range(first, last + 1)


def _short(text: str, most: int = 40) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def text(numbers: Iterable[int]) -> str:
    """The shortest such list, in order."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
