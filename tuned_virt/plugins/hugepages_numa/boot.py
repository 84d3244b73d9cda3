# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge pages on the kernel's command line: ordered pairs of a size and its numbers.

Sources: the kernel's Documentation/admin-guide/kernel-parameters.txt (hugepages=, hugepagesz=) and
mm/hugetlb.c. Numbers by node are understood from 5.16 on; one node that is not there drops the
whole list, and a size that comes again is ignored. Before 6.14 a list of pages of 1 GiB could come
to lie on other nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tuned_virt.plugins.hugepages_numa.pools import size_name, size_of

BY_NODE = (5, 16)
GIGANTIC_BY_NODE = (6, 14)
"""The first kernels that understand numbers by node, and that get them right for 1 GiB."""

GIGANTIC = 1 << 20
"""KiB of the smallest pages that a running kernel can rarely make: the guide's chapter 8.3.3.3."""


def version(release: str) -> tuple[int, int]:
    """Major and minor of a kernel release ("6.1.0-37-amd64"); (0, 0) for what is none."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def numbers(counts: Mapping[int, int], nodes: int, release: tuple[int, int]) -> str:
    """What `hugepages=` takes for counts by node on a machine with so many nodes with memory."""
    wanted = {node: count for node, count in sorted(counts.items()) if count}
    even = len(wanted) == nodes and len(set(wanted.values())) == 1
    if release < BY_NODE or (even and release < GIGANTIC_BY_NODE):
        return str(sum(wanted.values()))
    return ",".join(f"{node}:{count}" for node, count in wanted.items())


def remark(counts: Mapping[int, int], nodes: int, release: tuple[int, int]) -> str:
    """What this kernel makes of those numbers otherwise than by node; "" for nothing."""
    text = numbers(counts, nodes, release)
    if ":" in text and release < GIGANTIC_BY_NODE:
        return "kernels before 6.14 may put them on other nodes: verify after the reboot"
    if ":" not in text and len(set(counts.values())) > 1:
        return "kernels before 5.16 spread them evenly over all nodes"
    return ""


def arguments(wanted: Mapping[int, str]) -> str:
    """The arguments for numbers by size in KiB, in the order that the kernel needs."""
    pairs = (
        f"hugepagesz={size_name(size)} hugepages={text}"
        for size, text in sorted(wanted.items(), reverse=True)
        if text and text != "0"
    )
    return " ".join(pairs)


class BootPages(NamedTuple):
    """Numbers of one page size on a command line, and the words that they are written with."""

    size_kib: int
    numbers: str
    words: str


def requests(cmdline: str, default_kib: int = 2048) -> Iterator[BootPages]:
    """All that a command line asks for, in its order."""
    size, before = None, ""
    for word in cmdline.split():
        name, _, text = word.partition("=")
        if name in ("default_hugepagesz", "hugepagesz"):
            size = _size(text)
            before = f"{word} " if name == "hugepagesz" else ""
            default_kib = size if name == "default_hugepagesz" and size else default_kib
        elif name == "hugepages":
            yield BootPages(size or default_kib, text, f"{before}{word}")
            before = ""


def parse(cmdline: str, default_kib: int = 2048) -> dict[int, str]:
    """Numbers by size in KiB, as the kernel reads its command line: the first of a size counts."""
    found: dict[int, str] = {}
    for one in requests(cmdline, default_kib):
        found.setdefault(one.size_kib, one.numbers)
    return found


def in_the_way(cmdline: str, size_kib: int, text: str) -> str:
    """The words that come before numbers to add, which the kernel then ignores; "" for none."""
    first = next((one for one in requests(cmdline) if one.size_kib == size_kib), None)
    return first.words if first and first.numbers != text else ""


def _size(text: str) -> int | None:
    try:
        return size_of(text.upper())
    except ValueError:
        return None
