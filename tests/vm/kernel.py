# SPDX-License-Identifier: GPL-2.0-or-later
"""The booted kernel's state, as far as profiles change it, and the way back to it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.kernel_snapshot import snapshot

KSM = Path("/sys/kernel/mm/ksm")
NODES = Path("/sys/devices/system/node")

State = Mapping[str, str]


def modules() -> list[str]:
    """Names of the loaded modules; those that need others come before them."""
    file = Path("/proc/modules")  # absent where the kernel has no modules
    return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []


def state() -> State:
    """Every value that a part of the profiles may write, by path, and the loaded modules."""
    return {**snapshot(), **{f"module {name}": "loaded" for name in modules()}}


def changed(before: State) -> dict[str, str | None]:
    """What is not as it was before, as it is now; None is what is gone."""
    now = state()
    return {
        name: now.get(name)
        for name in before.keys() | now.keys()
        if now.get(name) != before.get(name)
    }


def ksm(name: str) -> str:
    """A KSM file's text."""
    return (KSM / name).read_text().strip()


def put_back(before: State) -> None:
    """Undo what a test left behind; nothing is written where nothing is left."""
    if not changed(before):
        return
    if ksm("pages_shared") != "0":
        (KSM / "run").write_text("2")
    for _ in range(2):  # pages_to_scan may be refused until advisor_mode is back
        for path, value in snapshot().items():
            if before.get(path, value) != value:
                with contextlib.suppress(OSError):
                    Path(path).write_text(before[path])
    for module in modules():
        if f"module {module}" not in before:
            subprocess.run(["rmmod", module], check=False)
