# SPDX-License-Identifier: GPL-2.0-or-later
"""hugetlbfs: where pools are mounted, and mounting them.

Source: the kernel's Documentation/admin-guide/mm/hugetlbpage.rst, "Using Huge Pages". A mount shows
its page size as "2M" or "1024M", whatever was written when it was mounted.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

from tuned_virt.kernelfs import KernelFileError, KernelFS
from tuned_virt.options import OptionError

VALID = "an absolute path, and uid=, gid= (numbers) and mode= (octal) if need be, after spaces"

ABSENT = "absent"
"""What a mount's setting reads where nothing is mounted, and the folder is there."""

NO_FOLDER = "absent, no folder"
"""The same where the folder is not there either."""

TABLE = "/proc/self/mounts"
PATIENCE = 30
"""Seconds for mount(8) and umount(8)."""


@dataclass(frozen=True)
class Mount:
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

    @property
    def text(self) -> str:
        """As the option has it, and as the setting reads once it is mounted."""
        return self.path + self.options.replace(",", " ")


@dataclass(frozen=True)
class Mounted:
    """A hugetlbfs mount that is there: its page size in KiB (0 where it is not told)."""

    path: str
    size_kib: int


def parse(name: str, text: str) -> Mount:
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
    return Mount(path, **pairs)


def as_set(path: str, text: str) -> Mount:
    """The mount that a setting's text stands for; of one that is to be absent, its path."""
    return parse("", text) if text.startswith("/") else Mount(path)


def read(fs: KernelFS, default_kib: int) -> list[Mounted]:
    """The hugetlbfs mounts, in the order of mounting; one that names no size has the default."""
    found = []
    for line in (fs.read_optional(TABLE) or "").splitlines():
        fields = line.split(" ")
        if len(fields) > 3 and fields[2] == "hugetlbfs":
            size = re.search(r"(?:^|,)pagesize=(\d+)([KMG])", fields[3])
            unit = {"K": 1, "M": 1 << 10, "G": 1 << 20}
            kib = int(size[1]) * unit[size[2]] if size else default_kib
            found.append(Mounted(_unescaped(fields[1]), kib))
    return found


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), path)


def setting(fs: KernelFS, mount: Mount, size_kib: int, mounted: list[Mounted]) -> str:
    """What a mount's setting reads: its text where it is there, else that it is not.

    A mount of that size that others made at the same path counts, whatever its owner and mode.
    """
    at = [one for one in mounted if one.path == mount.path]
    if at:
        return mount.text if at[-1].size_kib == size_kib else f"{at[-1].size_kib} KiB pages"
    return ABSENT if fs.exists(mount.path) else NO_FOLDER


def write(path: str, after: str, size_kib: int) -> None:
    """Mount, or take the topmost mount away, and the folder with it if it was made for it.

    Raises KernelFileError.
    """
    try:
        if not after.startswith("/"):
            _run(["umount", "--", path])
            if after == NO_FOLDER:
                _run(["rmdir", "--", path])
            return
        mount = parse("", after)
        _run(["mkdir", "-p", "--", path])
        options = f"pagesize={size_kib}K{mount.options}"
        _run(["mount", "-t", "hugetlbfs", "-o", options, "hugetlbfs", path])
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise KernelFileError(path, str(said).strip(), after) from error


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE)
