# SPDX-License-Identifier: GPL-2.0-or-later
"""The disks of ZFS pools, of which sysfs says nothing.

udev's database knows the members of a pool, as blkid finds the pool's name and number on them; a
zvol's pool is in the link that OpenZFS's rule of udev gives to it. Where udev knows no member,
`zpool list` is asked, which waits for ever on a pool whose disks are gone: so that is bounded.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from tuned_virt.core.worker_pool import KeyedWorkerPool
from tuned_virt.kernel import commands, timeouts
from tuned_virt.kernel.block_device import DATABASE
from tuned_virt.kernel.files import KernelFS

MEMBER = "E:ID_FS_TYPE=zfs_member"

POOL = re.compile(r"[A-Za-z][\w.: -]*", re.ASCII)
"""A pool's name (zpoolconcepts(7))."""


class PoolUnknown(Exception):
    """The disks of a pool are not known; the message says why."""


class PoolSilent(Exception):
    """The same, as long as zpool does not answer."""


class ZfsPools:
    """Finds the members of pools again and again."""

    def __init__(self, fs: KernelFS) -> None:
        self._fs = fs
        self._workers = KeyedWorkerPool("virt-disks-zpool", threads=1, patience=timeouts.ZPOOL)
        self._last: dict[str, list[str]] = {}

    def members(self, pool: str) -> list[str]:
        """Paths of a pool's devices and files. Raises PoolUnknown and PoolSilent."""
        return self._by_udev(pool) or self._by_zpool(pool)

    def of_volume(self, name: str) -> str:
        """The pool that a zvol is in. Raises PoolUnknown."""
        number = self._fs.read_optional(f"/sys/block/{name}/dev")
        text = self._fs.read_optional(f"{DATABASE}/b{number}") if number else None
        found = re.search(r"^S:zvol/([^/\n]+)/", text or "", re.MULTILINE)
        if found is None:
            raise PoolUnknown(f"ZFS volume {name}: udev knows no link /dev/zvol/... to it")
        return found[1]

    def _by_udev(self, pool: str) -> list[str]:
        guid = self._fs.read_permitted(f"/proc/spl/kstat/zfs/{pool}/guid") or ""
        wanted = {MEMBER, f"E:ID_FS_LABEL={pool}"}
        if guid:  # a disk that has left the pool may still have the name of it
            wanted.add(f"E:ID_FS_UUID={guid}")
        return [
            f"/dev/{name}"
            for number, text in self._database()
            if wanted <= set(text.splitlines()) and (name := self._named(number))
        ]

    def _database(self) -> Iterator[tuple[str, str]]:
        """What udev knows of block devices, by number."""
        for file in sorted(self._fs.names(DATABASE)):
            if file.startswith("b"):
                yield file[1:], self._fs.read_optional(f"{DATABASE}/{file}") or ""

    def _named(self, number: str) -> str:
        return (self._fs.link(f"/sys/dev/block/{number}") or "").rpartition("/")[2]

    def _by_zpool(self, pool: str) -> list[str]:
        answer = self._workers.run({pool: functools.partial(listed, pool)})
        found = answer.get(pool, self._last.get(pool))
        if found is None:
            raise PoolSilent(f"ZFS pool {pool}: zpool does not answer")
        if isinstance(found, str):
            raise PoolUnknown(f"ZFS pool {pool}: {found}")
        if not found:
            raise PoolUnknown(f"ZFS pool {pool}: zpool names no device of it")
        self._last[pool] = found
        return found


def listed(pool: str) -> list[str] | str:
    """Paths of a pool's devices and files as zpool lists them, or why it does not."""
    if not POOL.fullmatch(pool):
        return "this is no pool's name"
    try:
        text = commands.run("zpool", "list", "-vHPL", pool, seconds=timeouts.PROGRAM)
    except commands.ToolError as error:
        return str(error)
    return paths(text)


def paths(text: str) -> list[str]:
    """Paths in what zpool lists: one line for each device, and those of mirrors and the pool have
    other names."""
    words = (line.strip().partition("\t")[0] for line in text.splitlines())
    return [word for word in words if word.startswith("/")]
