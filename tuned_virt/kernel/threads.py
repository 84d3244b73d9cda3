# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads, which the kernel may refuse: TasksMax= of the service, or no memory for a stack.

Whoever starts one either goes on without it or tries again; what he has marked as begun is not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from tuned_virt.kernel.errors import PlainError


class NoThreadError(PlainError):
    """The process cannot have another thread now."""


def start(target: Callable[[], object], name: str) -> None:
    """Have a daemon thread run it. Raises NoThreadError."""
    run(threading.Thread(target=target, name=name, daemon=True))


def run(thread: threading.Thread) -> None:
    """Start a thread. Raises NoThreadError."""
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        raise NoThreadError(f"no thread can be started ({error})") from error
