# SPDX-License-Identifier: GPL-2.0-or-later
"""A guard of the interpreter: what runs under it changes nothing, whatever it tries.

Python tells an audit hook (PEP 578) of each file that is opened, each program that is started and
each call that changes a file system; one that raises stops the call. A hook stays for the life of
the process, so there is one, which acts only while a guard is in force. It catches what a plugin
does unexpectedly; it is no cage for code that means harm, which root's profiles could run anyway.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

STOPPED = frozenset(
    f"os.{name}"
    for name in (
        *("chflags", "chmod", "chown", "exec", "fork", "forkpty", "kill", "killpg", "link"),
        *("lockf", "mkdir", "posix_spawn", "remove", "removexattr", "rename", "rmdir"),
        *("setxattr", "spawn", "symlink", "system", "truncate", "utime"),
    )
) | {"fcntl.ioctl", "pty.spawn", "socket.connect", "socket.sendto", "subprocess.Popen"}
"""Events of calls that act; https://docs.python.org/3/library/audit_events.html."""


class Stopped(PermissionError):
    """A call that would have acted was stopped."""

    def __init__(self, what: str) -> None:
        super().__init__(errno.EROFS, f"a preview changes nothing: {what}")


class Guard:
    """Stops what acts while it is in force; `stopped` lists what was."""

    _current: Guard | None = None
    _hooked = False

    def __init__(self) -> None:
        self.stopped: list[str] = []
        self._allowed = False

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """Guard what runs inside the with block, in every thread."""
        if not Guard._hooked:
            sys.addaudithook(_audit)
            Guard._hooked = True
        before, bytecode = Guard._current, sys.dont_write_bytecode
        Guard._current, sys.dont_write_bytecode = self, True
        try:
            yield
        finally:
            Guard._current, sys.dont_write_bytecode = before, bytecode

    @contextlib.contextmanager
    def program_allowed(self) -> Iterator[None]:
        """Let a program be started that is known to read only."""
        self._allowed = True
        try:
            yield
        finally:
            self._allowed = False

    def check(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Raises Stopped for what would act."""
        if event == "open":
            path, _, flags = arguments
            acts = bool((flags or 0) & WRITING) and path != os.devnull
        else:
            acts = event in STOPPED and not (self._allowed and event == "subprocess.Popen")
        if acts:
            what = f"{event} {arguments[0] if arguments else ''}".strip()
            self.stopped.append(what)
            raise Stopped(what)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    guard = Guard._current
    if guard is not None and (event == "open" or event in STOPPED):
        guard.check(event, arguments)
