# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel files (/proc, /sys) under a root, with errors that say what to look at."""

from __future__ import annotations

import functools
import glob
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 16

WILD = re.compile(r"(.*[*?[][^/]*)(/.*)?", re.DOTALL)
"""A pattern, and what of it follows its last wildcard: one look at each path that comes to, where
glob would make one for each of its folders."""

INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO in the kernel's include/linux/proc_ns.h."""


class KernelFileError(Exception):
    """A kernel file was not read or written: which, what value, and the kernel's reason.

    `code` is its errno, where it gave one.
    """

    def __init__(
        self, path: str, reason: str, value: str | None = None, code: int | None = None
    ) -> None:
        self.path = path
        self.value = value
        self.reason = reason
        self.code = code
        verb = "cannot read" if value is None else f"cannot write '{value}' to"
        super().__init__(f"{verb} {path}: {reason}")


class NotDone(KernelFileError):
    """A change that is no write was not made; whoever was to make it says why in its own words."""

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class KernelFS:
    """The kernel's files as seen under `root`: "/" on a machine, a folder in tests.

    Paths are given as the machine has them ("/sys/kernel/mm/ksm/run").
    """

    root: Path = Path("/")

    @functools.cached_property
    def _prefix(self) -> str:
        return os.fspath(self.root).rstrip("/")

    def _real(self, path: str) -> str:
        return f"{self._prefix}/{path.lstrip('/')}"

    def exists(self, path: str) -> bool:
        """Whether the file or folder is there."""
        return os.path.exists(self._real(path))

    def read(self, path: str) -> str:
        """The file's text without surrounding white space. Raises KernelFileError."""
        try:
            descriptor = os.open(self._real(path), os.O_RDONLY | os.O_CLOEXEC)
            try:
                text = b""
                while chunk := os.read(descriptor, CHUNK):
                    text += chunk
            finally:
                os.close(descriptor)
            return text.decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise KernelFileError(path, _reason(error)) from error

    def read_optional(self, path: str) -> str | None:
        """The file's text, or None where the file cannot be read."""
        try:
            return self.read(path)
        except KernelFileError:
            return None

    def read_number(self, path: str) -> int:
        """The file's number, 0 where the file is missing or holds none."""
        text = self.read_optional(path) or ""
        return int(text) if re.fullmatch(r"-?\d+", text) else 0

    def write(self, path: str, value: str) -> None:
        """Write a value in one write(2); the file must exist. Raises KernelFileError."""
        try:
            descriptor = os.open(self._real(path), os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
            try:
                os.write(descriptor, value.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise KernelFileError(path, _reason(error), value, error.errno) from error

    def changed_at(self, path: str) -> float | None:
        """When a file's inode was last changed, in seconds since the epoch; None if it is gone."""
        try:
            return os.stat(self._real(path)).st_ctime
        except OSError:
            return None

    def sees_all_processes(self) -> bool:
        """Whether /proc shows every process, as it does not in a container."""
        try:
            return os.readlink(self._real("/proc/self/ns/pid")) == INITIAL_PID_NAMESPACE
        except OSError:
            return False

    def open(self, path: str) -> int | None:
        """A descriptor to read a file from again and again, or None where it cannot be opened."""
        try:
            return os.open(self._real(path), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None

    def names(self, path: str) -> list[str]:
        """Names in a folder, in no order; none where it cannot be read."""
        try:
            return os.listdir(self._real(path))
        except OSError:
            return []

    def entries(self, path: str) -> dict[str, int]:
        """Names in a folder and their inode numbers; none where it cannot be read.

        What is new in sysfs gets a number of its own (fs/kernfs/dir.c, __kernfs_new_node).
        """
        try:
            with os.scandir(self._real(path)) as found:
                return {entry.name: entry.inode() for entry in found}
        except OSError:
            return {}

    def folders(self, path: str) -> int:
        """How many folders a folder has: its links less two, where the file system counts them."""
        real = self._real(path)
        try:
            links = os.stat(real).st_nlink
            return links - 2 if links > 1 else sum(entry.is_dir() for entry in os.scandir(real))
        except OSError:
            return 0

    def link(self, path: str) -> str | None:
        """What a symbolic link says, or None where it cannot be read."""
        try:
            return os.readlink(self._real(path))
        except OSError:
            return None

    def resolved(self, path: str) -> str:
        """The path with its symbolic links followed, as the machine has it."""
        real = os.path.realpath(self._real(path))
        root = os.path.realpath(self.root).rstrip("/")
        return real[len(root) :] if real.startswith(f"{root}/") else real

    def changed(self, path: str) -> int:
        """When a file was last changed, in ns since the epoch; 0 where it is not there."""
        try:
            return os.stat(self._real(path)).st_mtime_ns
        except OSError:
            return 0

    def block_number(self, path: str) -> str:
        """A block device's number, "8:1"; "" for anything else."""
        try:
            status = os.stat(self._real(path))
        except OSError:
            return ""
        if not stat.S_ISBLK(status.st_mode):
            return ""
        return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"

    def glob(self, pattern: str) -> list[str]:
        """Paths that match a pattern, sorted, as the machine has them."""
        skipped = len(self._real("")) - 1
        found = WILD.fullmatch(self._real(pattern))
        folders, rest = found.groups("") if found else (self._real(pattern), "")
        paths = (path + rest for path in glob.glob(folders))
        return sorted(path[skipped:] for path in paths if not rest or os.path.lexists(path))


def active_word(text: str) -> str:
    """The bracketed word of a selection file: "[none] scan-time" → "none"; other text as it is."""
    found = re.search(r"\[([^]]+)\]", text)
    return found.group(1) if found else text


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
