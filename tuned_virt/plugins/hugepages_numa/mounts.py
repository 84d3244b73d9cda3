# SPDX-License-Identifier: GPL-2.0-or-later
"""hugetlbfs: where pools are mounted, and mounting them.

Source: the kernel's Documentation/admin-guide/mm/hugetlbpage.rst, "Using Huge Pages". A mount shows
its page size as "2M" or "1024M", whatever was written when it was mounted.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
from collections.abc import Iterable

from tuned_virt.core.options import OptionError
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel import commands, procfs, timeouts
from tuned_virt.kernel.commands import ToolError
from tuned_virt.kernel.files import KernelFS, NotDone
from tuned_virt.plugins.hugepages_numa.setting_types import HugetlbMount, MountSetting, NotMounted

VALID = "an absolute path, and uid=, gid= (numbers) and mode= (octal) if needed, after spaces"

TABLE = "/proc/self/mounts"

OTHERS = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR}
"""Why a folder stays, or has gone, that is somebody else's doing."""


@dataclass(frozen=True)
class Mounted:
    """A hugetlbfs mount that is there: its page size in KiB (0 where it is not told)."""

    path: str
    size_kib: int


def parse(name: str, text: str) -> HugetlbMount:
    """A mount as an option has it. Raises OptionError."""
    path, *rest = text.split()
    pairs = dict(word.partition("=")[::2] for word in rest)
    fine = (
        re.fullmatch(r"(/[\w.+@-]+)+", path)
        and ".." not in path.split("/")
        and pairs.keys() <= {"uid", "gid", "mode"}
        and len(pairs) == len(rest)
        and all(re.fullmatch(r"\d{1,10}", pairs[key]) for key in pairs.keys() & {"uid", "gid"})
        and re.fullmatch(r"[0-7]{3,4}", pairs.get("mode", "755"))
    )
    if not fine:
        raise OptionError(name, text, VALID)
    return HugetlbMount(path, **pairs)


def read(fs: KernelFS, default_kib: int) -> list[Mounted]:
    """The hugetlbfs mounts, in the order of mounting; one that names no size has the default."""
    found = []
    for line in (fs.read_optional(TABLE) or "").splitlines():
        fields = line.split(" ")
        if len(fields) > 3 and fields[2] == "hugetlbfs":
            size = re.search(r"(?:^|,)pagesize=(\d+)([KMG])", fields[3])
            unit = {"K": 1, "M": 1 << 10, "G": 1 << 20}
            kib = int(size[1]) * unit[size[2]] if size else default_kib
            found.append(Mounted(procfs.unescaped(fields[1]), kib))
    return found


def found(
    fs: KernelFS, mount: HugetlbMount, size_kib: int, mounted: list[Mounted]
) -> HugetlbMount | NotMounted:
    """A mount where it is there, else what is.

    A mount of that size that others made at the same path counts, whatever its owner and mode.
    """
    path = fs.resolved(mount.path)
    at = [one.size_kib for one in mounted if one.path == path]
    if at:
        return mount if at[-1] == size_kib else NotMounted(mount.path, other_kib=at[-1])
    return NotMounted(mount.path, next(iter(_missing(fs, mount.path)), ""))


def _missing(fs: KernelFS, path: str) -> list[str]:
    """The folders on the way to a path that are not there, outermost first."""
    return [folder for folder in _way(path) if not fs.exists(folder)]


def _way(path: str) -> list[str]:
    """A path and the folders that lead to it, outermost first."""
    return list(itertools.accumulate(path.strip("/").split("/"), "{}/{}".format, initial=""))[1:]


def write(fs: KernelFS, setting: MountSetting, after: HugetlbMount | NotMounted) -> None:
    """Mount, or take the topmost mount away, and the folders with it that were made for it.

    Raises NotDone.
    """
    try:
        if isinstance(after, HugetlbMount):
            _mount(fs, after, setting.size_kib)
        else:
            _unmount(fs, after)
    except (OSError, ToolError) as error:
        raise NotDone(setting.path, str(error), str(after)) from error


def _mount(fs: KernelFS, mount: HugetlbMount, size_kib: int) -> None:
    made: list[str] = []
    try:
        for folder in _missing(fs, mount.path):
            os.mkdir(folder, 0o755)  # TuneD's umask may be 0
            made.append(folder)
        options = f"pagesize={size_kib}K{mount.options}"
        _run("mount", "-t", "hugetlbfs", "-o", options, "hugetlbfs", mount.path)
    except (OSError, ToolError):
        with contextlib.suppress(OSError):
            _remove(reversed(made))
        raise


def _unmount(fs: KernelFS, after: NotMounted) -> None:
    """Somebody may have unmounted it already, and keep something in its folder."""
    if fs.resolved(after.path) in {one.path for one in read(fs, 0)}:
        _run("umount", "--", after.path)
    if after.missing:
        way = reversed(_way(after.path))
        _remove(folder for folder in way if f"{folder}/".startswith(f"{after.missing}/"))


def _remove(folders: Iterable[str]) -> None:
    """Remove folders, innermost first, as far as nobody keeps anything in them. Raises OSError."""
    try:
        for folder in folders:
            os.rmdir(folder)
    except OSError as error:
        if error.errno not in OTHERS:
            raise


def _run(*command: str) -> None:
    commands.run(*command, seconds=timeouts.PROGRAM)
