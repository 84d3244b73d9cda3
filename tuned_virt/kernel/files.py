# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel files (/proc, /sys) under a root, with errors that say what to look at."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import stat
from typing import Union

from tuned_virt.kernel.errors import PlainError

AnyPath = Union[str, os.PathLike[str]]
"""A path in the file system; the daemon has no pathlib, which would take 0.6 MiB of its memory."""

CHUNK = 1 << 16

ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ESRCH, errno.ENODEV, errno.ENXIO}
"""There is no such file, process or device, or no longer."""

FORBIDDEN = {errno.EACCES, errno.EPERM}
"""Who asks may not know."""

OF_ANOTHER_KIND = {errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}
"""What has this name is no file."""

WILD = frozenset("*?[")
"""What makes a path a pattern."""

INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO in the kernel's include/linux/proc_ns.h."""


class KernelFileError(PlainError):
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


class KernelFileAbsent(KernelFileError):
    """There is no such file, or what it told of is gone."""


class NotDone(KernelFileError):
    """A change that is no write was not made; whoever was to make it says why in its own words."""

    def __str__(self) -> str:
        return self.reason


class CannotChange(NotDone):
    """A change that this kernel never makes, which is no failure of the one asked for."""


class KernelFS:
    """The kernel's files as seen under `root`: "/" on a machine, a folder in tests.

    Paths are given as the machine has them ("/sys/kernel/mm/ksm/run").
    """

    def __init__(self, root: AnyPath = "/") -> None:
        self.root = root

    @functools.cached_property
    def _prefix(self) -> str:
        return os.fspath(self.root).rstrip("/")

    def _real(self, path: str) -> str:
        return f"{self._prefix}/{path.lstrip('/')}"

    def _status(self, path: str) -> os.stat_result | None:
        """What stat(2) tells; None where there is nothing. Raises KernelFileError."""
        try:
            return os.stat(self._real(path))
        except OSError as error:
            _raise_unless_absent(path, error)
            return None

    def exists(self, path: str) -> bool:
        """Whether the file or folder is there. Raises KernelFileError where that cannot be told."""
        return self._status(path) is not None

    def read(self, path: str) -> str:
        """The file's text without surrounding white space.

        Bytes that are no text come as U+FFFD: names of others' processes may have such. Raises
        KernelFileAbsent, and KernelFileError where the file is there and cannot be read.
        """
        try:
            descriptor = os.open(self._real(path), os.O_RDONLY | os.O_CLOEXEC)
            try:
                text = b""
                while chunk := os.read(descriptor, CHUNK):
                    text += chunk
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _error(path, error) from error
        return text.decode(errors="replace").strip()

    def beginning(self, path: str, most: int) -> bytes:
        """A file's first bytes, at most so many. Raises as `read`."""
        try:
            descriptor = os.open(self._real(path), os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.read(descriptor, most)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _error(path, error) from error

    def read_optional(self, path: str) -> str | None:
        """The file's text, or None where there is none. Raises KernelFileError."""
        try:
            return self.read(path)
        except KernelFileAbsent:
            return None

    def read_permitted(self, path: str) -> str | None:
        """The same, and None where this process may not read it. Raises KernelFileError."""
        try:
            return self.read_optional(path)
        except KernelFileError as error:
            if error.code in FORBIDDEN:
                return None
            raise

    def read_number(self, path: str) -> int:
        """The file's number, 0 where there is none. Raises KernelFileError."""
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
            raise _error(path, error, value) from error

    def remove(self, path: str) -> None:
        """Remove a file that is no kernel's, and its folder where nothing else is in it.

        Raises KernelFileError.
        """
        try:
            os.unlink(self._real(path))
        except OSError as error:
            raise _error(path, error) from error
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(self._real(path)))

    def changed_at(self, path: str) -> float | None:
        """When a file's inode was last changed, in seconds since the epoch; None if it is gone."""
        status = self._status(path)
        return status.st_ctime if status else None

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

    def script(self, path: str, most: int) -> str:
        """The first `most` bytes of a script; "" for what is none. Raises KernelFileError.

        Nothing waits for the other end of a pipe.
        """
        try:
            descriptor = os.open(self._real(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except ValueError:
            return ""  # a name with a NUL
        except OSError as error:
            _raise_unless_absent(path, error)
            return ""
        try:
            plain = stat.S_ISREG(os.fstat(descriptor).st_mode)
            text = os.read(descriptor, most) if plain else b""
        except OSError as error:
            raise _error(path, error) from error
        finally:
            os.close(descriptor)
        return text.decode(errors="replace") if text.startswith(b"#!") else ""

    def executable(self, path: str) -> bool:
        """Whether anybody may execute a file."""
        status = self._status(path)
        return status is not None and bool(status.st_mode & 0o111)

    def names(self, path: str) -> list[str]:
        """Names in a folder, in no order; none where there is none. Raises KernelFileError."""
        try:
            return os.listdir(self._real(path))
        except OSError as error:
            _raise_unless_absent(path, error)
            return []

    def entries(self, path: str) -> dict[str, int]:
        """Names in a folder and their inode numbers; none where there is none.

        What is new in sysfs gets a number of its own (fs/kernfs/dir.c, __kernfs_new_node). Raises
        KernelFileError.
        """
        try:
            with os.scandir(self._real(path)) as found:
                return {entry.name: entry.inode() for entry in found}
        except OSError as error:
            _raise_unless_absent(path, error)
            return {}

    def folders(self, path: str) -> int:
        """How many folders a folder has: its links less two, where the file system counts them."""
        status = self._status(path)
        if status is None:
            return 0
        if status.st_nlink > 1:
            return status.st_nlink - 2
        with os.scandir(self._real(path)) as found:
            return sum(entry.is_dir() for entry in found)

    def link(self, path: str) -> str | None:
        """What a symbolic link says, or None where there is none, or not for this process."""
        try:
            return os.readlink(self._real(path))
        except OSError as error:
            if error.errno not in {*FORBIDDEN, errno.EINVAL}:
                _raise_unless_absent(path, error)
            return None

    def resolved(self, path: str) -> str:
        """The path with its symbolic links followed, as the machine has it."""
        real = os.path.realpath(self._real(path))
        root = os.path.realpath(self.root).rstrip("/")
        return real[len(root) :] if real.startswith(f"{root}/") else real

    def changed(self, path: str) -> int:
        """When a file was last changed, in ns since the epoch; 0 where it is not there."""
        status = self._status(path)
        return status.st_mtime_ns if status else 0

    def device_number(self, path: str) -> str:
        """A block device's number, "8:1"; "" for anything else. Raises KernelFileError."""
        status = self._status(path)
        if status is None or not stat.S_ISBLK(status.st_mode):
            return ""
        return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"

    def block_number(self, path: str) -> str:
        """The same, and "" for what others keep to them."""
        try:
            return self.device_number(path)
        except KernelFileError:
            return ""

    def glob(self, pattern: str) -> list[str]:
        """Paths that match a pattern, sorted, as the machine has them. Raises KernelFileError.

        Unlike glob.glob it does not take a folder that cannot be read for an empty one.
        """
        import fnmatch  # an advice to libvirt looks for no pattern

        found = [""]
        way = re.findall(r"/[^/]+", pattern)
        last = max((n for n, part in enumerate(way) if WILD.intersection(part)), default=-1)
        for part in way[: last + 1]:
            if WILD.intersection(part):
                wanted = part[1:]
                found = [
                    f"{folder}/{name}"
                    for folder in found
                    for name in fnmatch.filter(self.names(folder), wanted)
                    if not name.startswith(".")
                ]
            else:
                found = [folder + part for folder in found]
        rest = "".join(way[last + 1 :])
        return sorted(path + rest for path in found if not rest or self._is_there(path + rest))

    def _is_there(self, path: str) -> bool:
        """Whether there is something, were it a link to nothing. Raises KernelFileError."""
        try:
            os.lstat(self._real(path))
        except OSError as error:
            _raise_unless_absent(path, error)
            return False
        return True


def active_word(text: str) -> str:
    """The bracketed word of a selection file: "[none] scan-time" → "none"; other text as it is."""
    found = re.search(r"\[([^]]+)\]", text)
    return found.group(1) if found else text


def _error(path: str, error: OSError, value: str | None = None) -> KernelFileError:
    absent = error.errno in ABSENT and value is None
    kind = KernelFileAbsent if absent else KernelFileError
    return kind(path, error.strerror or str(error), value, error.errno)


def _raise_unless_absent(path: str, error: OSError) -> None:
    """Raises KernelFileError for any other error."""
    if error.errno not in ABSENT:
        raise _error(path, error) from error
