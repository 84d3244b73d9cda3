# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge pages on the kernel's command line: ordered pairs of a size and its numbers.

Sources: the kernel's Documentation/admin-guide/kernel-parameters.txt (hugepages=, hugepagesz=),
mm/hugetlb.c, and lib/cmdline.c, which reads 1GB, 1024M and 0x40000000 as 1G. Numbers by node are
understood from 5.16 on; one node that is not there drops the whole list, and a size that comes
again is ignored. Before 6.14 a list of pages of 1 GiB could come to lie on other nodes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from tuned_virt.plugins.hugepages_numa.pools import size_name

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


VMEMMAP = "hugetlb_free_vmemmap"
VMEMMAP_SINCE = (5, 14)
WORTH_MIB = 256
STRUCT_PAGE = 64
"""Bytes that the kernel keeps for each base page; all but one page of those can be freed."""


def without_vmemmap(
    counts: Mapping[int, int], cmdline: str, release: tuple[int, int], base: int
) -> str:
    """What the kernel could free of its own tables for pages by size in KiB; "" for little.

    `base` is the base page in bytes.
    """
    freed = sum(
        max(0, size * 1024 // base * STRUCT_PAGE - base) * pages for size, pages in counts.items()
    )
    if release < VMEMMAP_SINCE or f"{VMEMMAP}=" in cmdline or freed >> 20 < WORTH_MIB:
        return ""
    return f"{VMEMMAP}=on would free {freed >> 20} MiB of the kernel's tables for these pages"


def left_out(cmdline: str, size_kib: int) -> str:
    """Why the kernel may lack a size that its machine has; "" for another reason."""
    found = list(_parameters(cmdline))
    defaults = [one for one in found if one.name == "default_hugepagesz"]
    named = {_size(one.text) for one in (*found, *defaults[:1]) if one.name.endswith("hugepagesz")}
    if not defaults or size_kib in named:
        return ""
    add = f"add hugepagesz={size_name(size_kib)}"
    return f"{defaults[0].word} on its command line leaves out others: {add}"


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

    @property
    def none(self) -> bool:
        """Whether all numbers are 0, which counts as none given."""
        return not re.search(r"(?:^|:)0*[1-9]", self.numbers)


def requests(
    cmdline: str, default_kib: int = 2048, sizes: Collection[int] = ()
) -> dict[int, BootPages]:
    """By size in KiB, what a command line asks for that has an effect; `sizes` are the kernel's.

    As mm/hugetlb.c reads it: a size that is not valid, or comes again, has what follows it ignored;
    hugepages= before any size is for the default size, wherever on the line that is given.
    """
    reader = _Reader(sizes)
    for one in _parameters(cmdline):
        if one.name == "default_hugepagesz":
            reader.default_size(one.text)
        elif one.name == "hugepagesz":
            reader.size(one.text, one.word)
        elif one.name == "hugepages":
            reader.pages(one.text, one.word)
    return reader.found(default_kib)


class _Reader:
    """The kernel's state while it reads: the size that numbers are for, and the sizes it knows."""

    def __init__(self, sizes: Collection[int]) -> None:
        self._sizes = sizes
        self._known: set[int] = set()
        self._valid = True
        self._current: int | None = None
        self._last: int | None = -1
        self._default: int | None = None
        self._asked: dict[int | None, BootPages] = {}
        self._before = ""

    def default_size(self, text: str) -> None:
        """default_hugepagesz=: the first counts."""
        size = self._parsed(text)
        self._valid = self._default is None and size is not None
        self._before = ""
        if self._default is None and size is not None:
            self._default = size
            self._add(size)
            self._give_to_default(size)

    def size(self, text: str, word: str) -> None:
        """hugepagesz=: each once, and the default size's once more while it has no pages."""
        size = self._parsed(text)
        again = size in self._known and (size != self._default or not self._without_pages(size))
        self._valid = size is not None and not again
        self._before = f"{word} "
        if size is not None and not again:
            self._known.add(size)
            self._current = size

    def pages(self, text: str, word: str) -> None:
        """hugepages=: for the size before it; None stands for the default size, not yet known."""
        words, self._before = f"{self._before}{word}", ""
        if not self._valid:
            self._valid = True
            return
        size = self._current if self._known else None
        counted = _counted(text)
        if size != self._last and counted:
            self._last = size
            self._asked[size] = BootPages(size or 0, counted, words)

    def found(self, default_kib: int) -> dict[int, BootPages]:
        """All that counts, in the line's order."""
        self._give_to_default(self._default or default_kib)
        return {size: one for size, one in self._asked.items() if size is not None}

    def _add(self, size: int) -> None:
        if size not in self._known:
            self._known.add(size)
            self._current = size

    def _give_to_default(self, size: int) -> None:
        one = self._asked.pop(None, None)
        if one is not None and not (one.none and size in self._asked):
            self._asked[size] = one._replace(size_kib=size)

    def _without_pages(self, size: int | None) -> bool:
        return size not in self._asked or self._asked[size].none

    def _parsed(self, text: str) -> int | None:
        size = _size(text)
        return size if not self._sizes or size in self._sizes else None


def parse(cmdline: str, default_kib: int = 2048, sizes: Collection[int] = ()) -> dict[int, str]:
    """Numbers by size in KiB, as the kernel reads its command line."""
    return {size: one.numbers for size, one in requests(cmdline, default_kib, sizes).items()}


def in_the_way(cmdline: str, size_kib: int, text: str) -> str:
    """The words that come before numbers to add, which the kernel then ignores; "" for none."""
    kernels = cmdline.partition(" -- ")[0]
    first = requests(f"{kernels} {arguments({size_kib: text})}").get(size_kib)
    return first.words if first and first.numbers != text else ""


class _Parameter(NamedTuple):
    """One of the kernel's parameters: its name with underscores, its value, and both as written."""

    name: str
    text: str
    word: str


def _parameters(cmdline: str) -> Iterator[_Parameter]:
    """Those of the kernel, as next_arg and parameq read them; what follows -- is init's."""
    for word in re.findall(r'(?:"[^"]*"?|[^\s"])+', cmdline):
        if word == "--":
            return
        name, _, text = word.strip('"').partition("=")
        yield _Parameter(name.replace("-", "_"), text.strip('"'), word)


def _size(text: str) -> int | None:
    """A size in KiB as the kernel's memparse reads it, which heeds nothing behind the unit."""
    found = re.match(r"(0x[0-9a-f]+|[0-9]+)([kmgtpe]?)", text, re.IGNORECASE | re.ASCII)
    if found is None:
        return None
    octal = re.fullmatch("0[0-7]+", found[1])
    number = int(found[1], 8 if octal else 16 if found[1][1:2] in ("x", "X") else 10)
    size = number << 10 * (" kmgtpe".index(found[2].lower()) if found[2] else 0)
    return size >> 10


def _counted(text: str) -> str:
    """Numbers as the kernel takes them: by node, or one, without what follows; "" for none."""
    by_node = re.match(r"\d+:\d+(?:,\d+:\d+)*", text, re.ASCII)
    found = by_node or re.match(r"\d+", text, re.ASCII)
    return found[0] if found else ""
