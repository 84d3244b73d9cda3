# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt restore` beside a libvirtd that hangs, and a TuneD that starts meanwhile."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.libvirtd import Libvirtd
from tests.pinners import affinities
from tests.sandbox import Sandbox, wait_for

PROFILE = """[main]
summary=x
[ksm]
run=1
[hugepages_numa]
pages_2M=0:16
[vm_pinning]
policy=dedicated
housekeeping=0
running=place
"""

SETTINGS = (
    "/sys/kernel/mm/ksm/run",
    "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages",
)

KEPT = 100
"""Guests of which an original is kept."""

PROMPT = 5.0
"""Seconds in which the kernel's settings are back."""


def settings() -> list[str]:
    return [Path(path).read_text() for path in SETTINGS]


def keep_more(t: Sandbox) -> None:
    """Originals of guests that nobody sees, beside those of the guests that run."""
    file = t.root / "run/tuned-virt/baseline.json"
    content = json.loads(file.read_text())
    originals = content["plugins"]["vm_pinning"]["originals"]
    one = json.loads(next(text for key, text in originals.items() if "/" in key))
    for number in range(KEPT - len(originals)):
        uuid = f"{number:08x}-0000-4000-8000-000000000000"
        made = {**one, "uuid": uuid, "id": 100 + number, "pid": 0, "start": 0}
        originals[f"{uuid}/#{100 + number}"] = json.dumps(made)
    file.write_text(json.dumps(content))


@pytest.fixture
def held(tuned: Callable[..., Sandbox], version: str) -> tuple[Sandbox, Libvirtd, list[str]]:
    """A TuneD that was killed, its libvirtd, and the kernel's settings before."""
    t = tuned(version, profiles={"mine": PROFILE})
    before = settings()
    return t, Libvirtd(t), before


def test_kernel_settings_wait_for_no_hung_libvirtd(
    held: tuple[Sandbox, Libvirtd, list[str]],
) -> None:
    t, libvirt, before = held
    with ExitStack() as stack:
        stack.enter_context(libvirt)
        libvirt.start_guest("web1")
        t.switch("mine")
        wait_for("web1 is pinned", lambda: "vm_pinning" in kept(t))
        assert settings() != before
        t.kill9()
        keep_more(t)
        with libvirt.frozen():
            began = time.monotonic()
            restoring = start_restore(t)
            wait_for("the kernel's settings are back", lambda: settings() == before, PROMPT)
            taken = time.monotonic() - began
            said, _ = restoring.communicate(timeout=60)
        assert taken < PROMPT
        assert restoring.returncode == 1
        assert list(kept(t)) == ["vm_pinning"]
        assert len(kept(t)["vm_pinning"]["pending"]) == KEPT, said
        done = t.run(["tuned-virt", "restore"])
        assert done.returncode == 0
        assert kept(t) == {}


def test_a_tuned_that_starts_meanwhile_keeps_what_it_holds(
    held: tuple[Sandbox, Libvirtd, list[str]],
) -> None:
    t, libvirt, before = held
    with ExitStack() as stack:
        stack.enter_context(libvirt)
        libvirt.start_guest("web1")
        threads = set(affinities(libvirt.guest_pid("web1")).values())
        t.switch("mine")
        wait_for("web1 is pinned", lambda: "vm_pinning" in kept(t))
        t.kill9()
        with libvirt.frozen():
            restoring = start_restore(t)
            t.start()
            restoring.communicate(timeout=60)
        wait_for("verify passes", t.verify)
        t.off()
        wait_for("all is back", lambda: settings() == before and not kept(t))
        assert set(affinities(libvirt.guest_pid("web1")).values()) == threads


def start_restore(t: Sandbox) -> subprocess.Popen[str]:
    return subprocess.Popen(
        t.command(["tuned-virt", "restore"]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kept(t: Sandbox) -> dict[str, dict[str, dict[str, str]]]:
    """What is kept, by plugin."""
    file = t.root / "run/tuned-virt/baseline.json"
    found: dict[str, dict[str, dict[str, str]]] = {}
    if file.exists():
        found = json.loads(file.read_text())["plugins"]
    return found


HOLDER = """import fcntl, os, signal
lock = open("/run/tuned-virt/baseline.lock")
fcntl.flock(lock, fcntl.LOCK_EX)
print(os.getpid(), flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""
"""As a `tuned-virt restore` that Ctrl-Z or a debugger stops at the wrong moment."""


@contextlib.contextmanager
def stopped_holder(t: Sandbox) -> Iterator[int]:
    """Its number inside the sandbox. nsenter stops with it."""
    command = t.command(["/usr/bin/python3", "-c", HOLDER])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as entered:
        assert entered.stdout is not None
        pid = int(entered.stdout.readline())
        try:
            yield pid
        finally:
            t.run(["kill", "-KILL", str(pid)])
            entered.kill()


def test_a_stopped_holder_of_the_lock_blocks_nobody_and_is_named(
    tuned: Callable[..., Sandbox], version: str
) -> None:
    t = tuned(version, profiles={"mine": "[main]\nsummary=x\n[ksm]\nrun=1\n"})
    before = settings()
    t.switch("mine")
    t.off()  # the folder and the lock's file are there
    with stopped_holder(t) as pid:
        named = f"process {pid} (python3), which is stopped, holds its lock"
        began = time.monotonic()
        t.switch("mine")
        assert not t.verify()
        assert named in t.verify_lines
        assert time.monotonic() - began < 25, "D-Bus gives up after that"
        assert settings() == before, "nothing is changed"
    t.switch("mine")
    assert t.verify(), t.verify_lines
    t.off()
    wait_for("all is back", lambda: settings() == before and not kept(t))
