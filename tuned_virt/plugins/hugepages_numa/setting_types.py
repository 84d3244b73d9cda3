# SPDX-License-Identifier: GPL-2.0-or-later
"""What is set of huge pages: each setting and its value, and the texts that the originals keep."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, Union

from tuned_virt.core.plan import Values
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.model.topology.huge_pages import FOLDER, Pool, folder
from tuned_virt.plugins.hugepages_numa.pools import TRANSPARENT, size_name, size_of


class PoolSetting(NamedTuple):
    """Persistent pages of one node's pool of one page size in KiB; their number is its value."""

    node: int
    size_kib: int

    def __str__(self) -> str:
        return f"pages_{size_name(self.size_kib)} node{self.node}"

    @property
    def file(self) -> str:
        """The kernel's file."""
        return f"{folder(self.node, self.size_kib)}/nr_hugepages"


Pools = Mapping[PoolSetting, Pool]

Pages = Mapping[PoolSetting, int]
"""Persistent pages by pool."""


class OvercommitSetting(NamedTuple):
    """Surplus pages of one size in KiB that the kernel may add; their number is its value."""

    size_kib: int

    def __str__(self) -> str:
        return f"overcommit_{size_name(self.size_kib)}"

    @property
    def file(self) -> str:
        """The kernel's file."""
        return f"{FOLDER}/hugepages-{self.size_kib}kB/nr_overcommit_hugepages"


class TransparentSetting(NamedTuple):
    """An option of transparent huge pages; its value is the word or number of its file."""

    option: str

    def __str__(self) -> str:
        return self.option

    @property
    def file(self) -> str:
        """The kernel's file."""
        if self.option == "transparent_hugepages":
            return f"{TRANSPARENT}/enabled"
        return f"{TRANSPARENT}/{self.option.replace('khugepaged_', 'khugepaged/', 1)}"


class MountSetting(NamedTuple):
    """A hugetlbfs mount of pages of one size in KiB; its value is the mount, or what is there."""

    size_kib: int
    path: str

    def __str__(self) -> str:
        return f"mount_{size_name(self.size_kib)} {self.path}"


@dataclass(frozen=True)
class HugetlbMount:
    """A hugetlbfs mount to have: its path, and its root's owner and mode ("": the kernel's)."""

    path: str
    uid: str = ""
    gid: str = ""
    mode: str = ""

    @property
    def options(self) -> str:
        """Mount options besides the page size."""
        named = {"uid": self.uid, "gid": self.gid, "mode": self.mode}
        return "".join(f",{name}={value}" for name, value in named.items() if value)

    def __str__(self) -> str:
        return self.path + self.options.replace(",", " ")


@dataclass(frozen=True)
class NotMounted:
    """What is at a path instead of a mount.

    missing    the first folder on the way that is not there, "" where all are
    other_kib  page size of another mount
    """

    path: str
    missing: str = ""
    other_kib: int = 0

    def __str__(self) -> str:
        if self.other_kib:
            return f"{self.other_kib} KiB pages"
        if not self.missing:
            return ABSENT
        return NO_FOLDER if self.missing == self.path else f"{NO_FOLDER} {self.missing}"


ABSENT = "absent"
NO_FOLDER = "absent, no folder"

FileSetting = Union[OvercommitSetting, TransparentSetting]
Setting = Union[PoolSetting, FileSetting, MountSetting]
Value = Union[int, str, HugetlbMount, NotMounted]


def parse(originals: Values) -> dict[Setting, Value]:
    """Settings as the originals have them in text."""
    return dict(_parsed(name, text) for name, text in originals.items())


def _parsed(name: str, text: str) -> tuple[Setting, Value]:
    found = re.fullmatch(r"(pages|overcommit|mount)_(\d+[KMG])(?: (?:node)?(\S+))?", name)
    if not found:
        return TransparentSetting(name), text
    size = size_of(found[2])
    if found[1] == "pages":
        return PoolSetting(int(found[3]), size), int(text)
    if found[1] == "overcommit":
        return OvercommitSetting(size), int(text)
    return MountSetting(size, found[3]), mount_value(found[3], text)


def mount_value(path: str, text: str) -> HugetlbMount | NotMounted:
    """What a text says of the mount at a path."""
    if text.startswith("/"):
        _, *options = text.split()
        return HugetlbMount(path, **dict(word.split("=", 1) for word in options))
    if text.startswith(NO_FOLDER):
        return NotMounted(path, missing=text[len(NO_FOLDER) :].strip() or path)
    return NotMounted(path, other_kib=0 if text == ABSENT else int(text.split(maxsplit=1)[0]))
