# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's binding, which hosts may lack, its one event loop, and the threads that call it.

The only import of it, when it is first needed: it takes 10 MiB and 40 ms. The loop runs in one
thread for the life of the process. It shares GLib's default context with TuneD's D-Bus thread, so
callbacks may come in either: they only leave a note for somebody else.

Nobody may be inside libvirt when Python ends: what libvirt then calls back (timers, events, its
error handler) takes an interpreter that is no more, and the process ends with a segmentation fault.
So `end` runs before that, after whatever else is registered with atexit.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from tuned_virt.core.options import SYSTEM
from tuned_virt.kernel import threads
from tuned_virt.libvirt_api.errors import LibvirtError
from tuned_virt.model.guest import printable

__all__ = [
    "SYSTEM",
    "agent_command",
    "libvirt",
    "missing",
    "not_installed",
    "open_uri",
    "run_loop",
    "work",
]

log = logging.getLogger("tuned")

SOCKETS = ("/run/libvirt/libvirt-sock-ro", "/run/libvirt/virtqemud-sock-ro")
"""One of them is there wherever SYSTEM can be opened."""

KEEPALIVE, KEEPALIVE_COUNT = 5, 3
"""Seconds between questions to libvirtd, and how many without answer end the connection."""

LOOP_WAKES = 500
"""Milliseconds between wakes of the event loop; without them it misses what other threads add."""

CLOSED = {1: "libvirtd closed the connection", 2: "libvirtd no longer answers"}
"""What libvirt's reasons for a closed connection mean (virConnectCloseReason)."""

RETRY = 1.0
"""Seconds after which an event loop that failed is run again."""


@functools.cache
def libvirt() -> Any:
    """The binding; None where it is not installed."""
    try:
        import libvirt as found
    except ImportError:
        return None
    return found


def agent_command(domain: Any, command: str, seconds: int) -> str:
    """The answer of a guest's agent, as JSON. Raises the binding's errors."""
    import libvirt_qemu

    answer: str = libvirt_qemu.qemuAgentCommand(domain, command, seconds, 0)
    return answer


PACKAGES = {"libvirt": "python3-libvirt", "defusedxml": "python3-defusedxml"}
"""Modules that it takes to ask libvirt, with the packages that have them."""


def not_installed() -> str:
    """What has to be installed to ask libvirt; "" for nothing. Imports nothing."""
    package = next((name for module, name in PACKAGES.items() if not _is_there(module)), "")
    return f"{package} is not installed" if package else ""


_installed: set[str] = set()
"""Modules that were found once; the others may be installed while TuneD runs."""


def _is_there(module: str) -> bool:
    if module not in _installed:
        try:
            found = importlib.util.find_spec(module)
        except (ImportError, ValueError):  # ValueError: sys.modules has an entry without a spec
            return False
        if found is not None:
            _installed.add(module)
    return module in _installed


def missing(uri: str = SYSTEM) -> str:
    """What this machine lacks to ask libvirt, found out without asking it; "" for nothing."""
    if uri == SYSTEM and not any(map(os.path.exists, SOCKETS)):
        return not_installed() or f"there is no libvirt socket ({' or '.join(SOCKETS)})"
    return not_installed() or ("" if libvirt() else "python3-libvirt cannot be imported")


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Around calls of the binding. Raises LibvirtError."""
    try:
        yield
    except libvirt().libvirtError as error:
        raise LibvirtError(printable(str(error)), error.get_error_code()) from error


SPARE_FILES = 16
"""Descriptors that must be free before a connection is opened: where libvirt's client gets none for
its event loop (GWakeup), GLib ends the whole process."""


def need_files() -> None:
    """Raises LibvirtError where this process has too few descriptors left for a connection."""
    spare: list[int] = []
    try:
        while len(spare) < SPARE_FILES:
            spare.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise LibvirtError(f"no connection to libvirt is opened: {error.strerror}") from error
    finally:
        for descriptor in spare:
            os.close(descriptor)


def open_uri(uri: str, read_only: bool) -> Any:
    """A connection; libvirt's errors are raised, and not written to stderr besides.

    Raises LibvirtError.
    """
    need_files()
    with translated():
        libvirt().registerErrorHandler(lambda *_: None, None)
        return libvirt().openReadOnly(uri) if read_only else libvirt().open(uri)


ENDING = 1.0
"""Seconds that the process's end waits for threads that are in libvirt, and then for its loop."""

_loop_lock = threading.Lock()
_loop: threading.Thread | None = None
_ending = threading.Event()
_workers: weakref.WeakKeyDictionary[threading.Thread, Callable[[], None]] = (
    weakref.WeakKeyDictionary()
)


def run_loop() -> None:
    """Run libvirt's default event loop, in one thread for the life of the process.

    Raises LibvirtError.
    """
    global _loop  # noqa: PLW0603 - libvirt has one per process
    with _loop_lock:
        if _loop is None:
            need_files()
            libvirt().virEventRegisterDefaultImpl()
            libvirt().virEventAddTimeout(LOOP_WAKES, lambda *_: None, None)
            loop = threading.Thread(target=_loop_forever, name="virt-libvirt-loop", daemon=True)
            try:
                threads.run(loop)
            except threads.NoThreadError as error:
                raise LibvirtError(str(error)) from error
            _loop = loop


def _loop_forever() -> None:
    while not _ending.is_set():
        try:
            libvirt().virEventRunDefaultImpl()
        except Exception:
            log.exception("libvirt's event loop")
            _ending.wait(RETRY)


def work(target: Callable[[], None], name: str, stop: Callable[[], None]) -> threading.Thread:
    """Start a thread that calls libvirt; `stop` is called when the process ends.

    It has the thread leave libvirt and end as soon as libvirt answers, and never waits itself.
    Raises NoThreadError.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    threads.run(thread)
    _workers[thread] = stop
    return thread


def end() -> None:
    """Have all threads leave libvirt; one that libvirt keeps is left after `ENDING` seconds."""
    workers = dict(_workers)
    for stop in workers.values():
        stop()
    until = time.monotonic() + ENDING
    for thread in workers:
        thread.join(max(0.0, until - time.monotonic()))
    _ending.set()
    if _loop is not None:
        libvirt().virEventAddTimeout(0, lambda *_: None, None)  # wakes it
        _loop.join(ENDING)


atexit.register(end)
