# SPDX-License-Identifier: GPL-2.0-or-later
"""A JSON file of state: replaced atomically, of one format, and of one boot or of all.

A read gives a value or NOT_THERE, or it raises: OSError where the file cannot be read now, Damaged
where its text was read and is wrong, Foreign where it is another boot's or another version's.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Final, Generic, TypeVar

from tuned_virt.kernel import file_lock
from tuned_virt.kernel.files import AnyPath, KernelFileError

T = TypeVar("T")

FOLDER = "/run/tuned-virt"
FOLDER_MODE = 0o755
"""Root's alone to write, and for everybody to read."""

FORMAT = 1

HUGE_PAGES_PROGRESS = "hugepages.json"
"""In the folder while huge pages are being allocated; `status` looks for it."""

PLACEMENTS = "vm_pinning.json"
"""In the folder while guests are managed; `status` looks for it."""

EVERY_BOOT = "every boot"
"""For a file that outlives a boot, in place of a boot's id."""

WRONG = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    ArithmeticError,
    RecursionError,
)
"""What JSON that nobody has written raises, until it is a value: text, types, depth, numbers."""

ABSENT = (FileNotFoundError, NotADirectoryError)


class NotThere(Enum):
    """The type of NOT_THERE."""

    NOT_THERE = "not there"


NOT_THERE: Final = NotThere.NOT_THERE


class UnusableStateError(Exception):
    """A file whose text was read and cannot be used; the message says why."""


class Damaged(UnusableStateError):
    """The text is not what was written."""


class Foreign(UnusableStateError):
    """Another version of tuned-virt wrote it."""


class OfEarlierBoot(Foreign):
    """What it says went with that boot."""


def _warn(text: str, *values: object) -> None:
    import logging  # takes time to import, and an advice to libvirt has nothing to say

    logging.getLogger("tuned").warning(text, *values)


def only_root_writes(path: str, flags: int) -> int:
    """An opener for files that root believes: `tuned -d` runs with a umask of 0."""
    descriptor = os.open(path, flags, 0o644)
    try:
        os.fchmod(descriptor, 0o644)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def make_folder(path: str) -> None:
    """Make the folder of a file of ours where there is none, for all to read. Raises OSError."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(folder, mode=FOLDER_MODE, exist_ok=True)
        os.chmod(folder, FOLDER_MODE)  # a umask may have kept `status` from others


def believed(status: os.stat_result, path: str) -> None:
    """Raises PermissionError for a file or folder that other users may change: root would write to
    the kernel what they have put there."""
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        owner, mode = status.st_uid, stat.S_IMODE(status.st_mode)
        reason = f"other users may write to it (owner {owner}, mode {mode:03o}), so it is not used"
        raise PermissionError(errno.EPERM, reason, path)


def believed_folder(path: str) -> None:
    """The same of the folder of a file; a symbolic link is none. Raises OSError."""
    folder = os.path.dirname(path)
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode):
        raise PermissionError(errno.EPERM, "it is not a folder itself, so it is not used", folder)
    believed(status, folder)


@functools.cache
def boot_id() -> str:
    """The running kernel's boot id. Raises OSError."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


class StateFile(Generic[T]):
    """One file, and how its content becomes a value."""

    def __init__(
        self, path: AnyPath, parse: Callable[[dict[str, Any]], T], boot: str | None = None
    ) -> None:
        self.path = os.fspath(path)
        self._parse = parse
        self._boot = boot
        self._complained = False

    def _beside(self, suffix: str) -> str:
        return os.path.splitext(self.path)[0] + suffix

    @property
    def boot(self) -> str:
        """The boot it is of. Raises OSError."""
        return self._boot or boot_id()

    def version(self) -> tuple[int, ...]:
        """What differs between one content and the next; () where there is none. Raises OSError."""
        try:
            status = os.stat(self.path)
        except ABSENT:
            return ()
        return status.st_ino, status.st_mtime_ns, status.st_size

    def read(self) -> T | NotThere:
        """The value. Raises OSError, Damaged and Foreign."""
        try:
            with open(self.path, "rb") as file:
                text = file.read()
                status = os.fstat(file.fileno())
            believed_folder(self.path)
        except ABSENT:
            return NOT_THERE
        believed(status, self.path)
        try:
            content = json.loads(text)
            self._check(content)
            return self._parse(content)
        except WRONG as error:
            raise Damaged(f"is damaged ({type(error).__name__}: {error})") from error

    def _check(self, content: Any) -> None:
        if content["boot_id"] != self.boot:
            raise OfEarlierBoot("is of an earlier boot and no longer applies")
        found = content.get("format", FORMAT)  # not every file had one in the first version
        if found != FORMAT:
            raise Foreign(
                f"was written by another version of tuned-virt (format {found}, not {FORMAT})"
            )

    def load(self) -> T | None:
        """The value, or None where there is none that can be used, which is said.

        For a file that nobody's way back depends on.
        """
        try:
            found = self.read()
        except OfEarlierBoot:
            return None
        except (OSError, KernelFileError) as error:
            _warn("%s cannot be read: %s", self.path, getattr(error, "strerror", error))
            return None
        except UnusableStateError as error:
            _warn("%s %s; it is not used", self.path, error)
            return None
        return None if found is NOT_THERE else found

    def text(self, content: dict[str, Any]) -> str:
        """What the file has for a content. Raises OSError."""
        whole = {"format": FORMAT, "boot_id": self.boot, **content}
        return json.dumps(whole, default=sorted) + "\n"

    def write(self, content: dict[str, Any]) -> None:
        """Replace the file. Raises OSError."""
        text = self.text(content)
        try:
            believed_folder(self.path)
        except FileNotFoundError:
            make_folder(self.path)
            believed_folder(self.path)
        new = self._beside(".new")
        try:
            with open(new, "w", opener=only_root_writes) as file:
                file.write(text)
                if self._boot == EVERY_BOOT:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(new, self.path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise

    def save(self, content: dict[str, Any]) -> None:
        """Replace the file; one that cannot be written stops nobody, and is said once.

        For a file that nobody's way back depends on.
        """
        self._try(lambda: self.write(content), "written")

    def remove(self) -> None:
        """Nothing is to be said any more. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def discard(self) -> None:
        """The same; one that cannot be removed stops nobody, and is said once."""
        self._try(self.remove, "removed")

    def _try(self, action: Callable[[], None], what: str) -> None:
        try:
            action()
        except OSError as error:
            if not self._complained:
                _warn("%s is not %s: %s", self.path, what, error.strerror)
            self._complained = True

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes it meanwhile.

        Raises OSError, also where another process holds it too long.
        """
        path, flags = self._beside(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            lock = os.open(path, flags, 0o600)
        except FileNotFoundError:
            make_folder(self.path)
            lock = os.open(path, flags, 0o600)
        try:
            believed_folder(self.path)
            file_lock.take(lock, path)
            yield
        finally:
            os.close(lock)

    def set_aside(self, reason: UnusableStateError) -> None:
        """Keep the file under another name, for people, and say so. Raises OSError."""
        aside = f"{self.path}.{time.time_ns()}"
        os.rename(self.path, aside)
        _warn("%s %s; moved aside as %s", self.path, reason, os.path.basename(aside))

    def aside(self) -> list[str]:
        """Files of this boot that were set aside, oldest first. Raises OSError."""
        folder, name = os.path.split(self.path)
        try:
            names = sorted(os.listdir(folder))
        except ABSENT:
            return []
        aside = re.compile(rf"{re.escape(name)}\.\d+")
        found = [os.path.join(folder, one) for one in names if aside.fullmatch(one)]
        return [path for path in found if not self._is_of_earlier_boot(path)]

    def _is_of_earlier_boot(self, path: str) -> bool:
        try:
            StateFile(path, dict, self._boot).read()
        except OfEarlierBoot:
            return True
        except UnusableStateError:
            pass
        return False
