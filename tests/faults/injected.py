# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes one call of tuned_virt fail, inside a sandbox's TuneD; never shipped.

`world.py` copies this file beside the sandbox's packages, where a .pth file imports it if the
environment has TUNED_VIRT_FAULTS: the folder in which `control` says which call fails, and how.
What was called is written to `trace`, and the call that has failed to `fired`.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HANG = 2.5
"""Seconds that a hanging call takes: longer than TuneD waits for an apply."""

RETRY = 0.5
"""Seconds between attempts, in place of the product's half a minute."""

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
PASSED_THROUGH = re.compile(
    r"(pathlib|contextlib|os|subprocess|glob|shutil|functools|concurrent|threading|tempfile|json)\b"
)
"""Modules between tuned_virt and the call."""

OWN = {"ref", "c_pointer", "connect", "UUIDString", "ID", "name", "domain", "get_xml"}
"""Methods of libvirt's binding that ask nobody."""

OPEN, CLOSE, WRITE, READ, STAT = os.open, os.close, os.write, os.read, os.stat
"""The real ones."""


class Faults:
    """Which call fails: read from `control` whenever that is replaced."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._within = threading.local()
        self._seen: tuple[int, int] | None = None
        self._control: dict[str, Any] = {}
        self._count = 0
        self.files: dict[int, str] = {}

    def at(self, kind: str, what: str) -> str:
        """Called before each call: the error that it is to fail with, or ""."""
        if getattr(self._within, "busy", False):
            return ""
        caller = _caller()
        if not caller:
            return ""
        self._within.busy = True
        try:
            return self._at(f"{kind} {_general(what)} from {caller}")
        finally:
            self._within.busy = False

    def _at(self, label: str) -> str:
        with self._lock:
            self._reread()
            if self._control.get("trace"):
                self._append("trace", label)
            if label != self._control.get("label"):
                return ""
            self._count += 1
            if self._count != self._control["nth"]:
                return ""
            self._append("fired", label)
            return str(self._control["error"])

    def _reread(self) -> None:
        try:
            status = STAT(f"{self._folder}/control")
        except OSError:
            self._control = {}
            return
        seen = (status.st_ino, status.st_mtime_ns)
        if seen != self._seen:
            file = OPEN(f"{self._folder}/control", os.O_RDONLY)
            self._control, self._count, self._seen = json.loads(READ(file, 1 << 16)), 0, seen
            CLOSE(file)

    def _append(self, name: str, text: str) -> None:
        file = OPEN(f"{self._folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        WRITE(file, f"{text}\n".encode())
        CLOSE(file)


def _caller() -> str:
    """The function of tuned_virt that makes the call; "" for a call of somebody else's."""
    frame = sys._getframe(3)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("tuned_virt."):
            return f"{module.removeprefix('tuned_virt.')}.{frame.f_code.co_name}"
        if not PASSED_THROUGH.match(module):
            return ""
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def _general(what: str) -> str:
    """Without the numbers of processes, threads and moments."""
    what = re.sub(r"/proc/\d+(/task/\d+)?", lambda found: re.sub(r"\d+", "N", found[0]), what)
    return re.sub(r"\d{10,}", "N", what)


def _fail(error: str, path: object) -> None:
    """Raises OSError, or hangs."""
    if error == "hang":
        time.sleep(HANG)
    elif error:
        code = getattr(errno, error)
        raise OSError(code, os.strerror(code), path if isinstance(path, str) else None)


def wrap(faults: Faults, module: Any, name: str, kind: Callable[..., str]) -> None:
    """Have a function of a module ask first."""
    real = getattr(module, name)

    def wrapped(*given: Any, **named: Any) -> Any:
        what = str(given[0]) if given else ""
        if given and isinstance(given[0], int) and name in ("read", "write", "fchmod", "flock"):
            what = faults.files.get(given[0], "a descriptor")
        _fail(faults.at(kind(*given, **named), f"{name}({what})"), what)
        result = real(*given, **named)
        if name == "open" and isinstance(result, int):
            faults.files[result] = what
        return result

    setattr(module, name, wrapped)


def _of_flags(_path: object, flags: int, *_: object, **__: object) -> str:
    return "write" if flags & WRITES else "read"


def _of_mode(_path: object, mode: str = "r", *_: object, **__: object) -> str:
    return "write" if set(mode) & set("wax+") else "read"


def wrap_files(faults: Faults) -> None:
    """All that reads or writes files, runs programs or places threads."""
    wrap(faults, os, "open", _of_flags)
    wrap(faults, builtins, "open", _of_mode)
    wrap(faults, io, "open", _of_mode)
    for module, name in (
        *((os, name) for name in ("write", "replace", "rename", "unlink", "mkdir", "rmdir")),
        *((os, name) for name in ("sched_setaffinity", "fchmod")),
        *((fcntl, "flock"), (subprocess, "run")),
    ):
        wrap(faults, module, name, lambda *_, **__: "write")
    for name in ("read", "listdir", "scandir", "stat", "readlink"):
        wrap(faults, os, name, lambda *_, **__: "read")


def wrap_libvirt(faults: Faults) -> None:
    """All that asks libvirtd."""
    try:
        import libvirt
    except ImportError:
        return
    for owner in (libvirt.virDomain, libvirt.virConnect, libvirt):
        names = ("open", "openReadOnly") if owner is libvirt else dir(owner)
        for name in names:
            if not name.startswith("_") and name not in OWN and callable(getattr(owner, name)):
                _wrap_libvirt(faults, owner, name, libvirt.libvirtError)


def _wrap_libvirt(faults: Faults, owner: Any, name: str, kind: type[Exception]) -> None:
    real = getattr(owner, name)

    def wrapped(*given: Any, **named: Any) -> Any:
        error = faults.at("libvirt", name)
        if error == "hang":
            time.sleep(HANG)
        elif error:
            refused = kind(f"injected: {error}")
            refused.err = (38, 10, f"injected: {error}", 2, "", "", "", 0, 0)  # type: ignore[attr-defined]
            raise refused
        return real(*given, **named)

    setattr(owner, name, wrapped)


def begin(folder: str) -> None:
    """Wrap everything, and have what failed tried again soon."""
    from tuned_virt.kernel import timeouts

    timeouts.RETRY_RESTORE = timeouts.RETRY_REFUSED = RETRY
    Path(folder).mkdir(exist_ok=True)
    faults = Faults(folder)
    wrap_files(faults)
    wrap_libvirt(faults)


if "TUNED_VIRT_FAULTS" in os.environ:
    begin(os.environ["TUNED_VIRT_FAULTS"])
