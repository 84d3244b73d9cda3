# SPDX-License-Identifier: GPL-2.0-or-later
"""What is compared by the KSM bench: who decides how ksmd scans, from the kernel's defaults on.

ksmtuned is Debian's own script, unpacked and not installed, with two changes: its configuration
file is ours, and its pattern for guests, which no guest of a current libvirt matches, finds them.
That configuration makes it merge whatever memory is free (KSM_THRES_COEF=100), as on a host that
is short of it; all else are its defaults.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from bench.ksm_machine import PYTHON, Host, Ksmd, put, reset
from tests import debian
from tests.debian import CACHE
from tests.sandbox import REPO

KSMTUNED_SUITE = "trixie"
KSMTUNED_CONF = "KSM_THRES_COEF=100\n"
KSMTUNED_CHANGES = (
    ("/etc/ksmtuned.conf", "{conf}"),
    ("'^qemu-system.*-enable-kvm'", "'[/]qemu-system-'"),
)
"""Text of the script → ours. [/]: pgrep must not find itself."""

AUTO = ("max_cpu=50", "eager=1")
AUTO_LOG = CACHE / "bench-ksm-auto.log"
AGED = 276.0
"""Seconds of CPU that an aged ksmd has burnt."""

PATIENCE = 60.0


class RivalFailed(Exception):
    """A rival does not start, with the reason."""


class Controller:
    """A rival's own processes: one process group, or none where the kernel does it alone."""

    def __init__(self, process: subprocess.Popen[str] | None = None) -> None:
        self._group = process.pid if process else None
        self._before = 0.0
        self._before = self.cpu()

    def cpu(self) -> float:
        """Seconds of CPU since it was started up; its ended children come in ticks of 10 ms."""
        if self._group is None:
            return 0.0
        total = 0.0
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                if int(stat[2]) == self._group:
                    total += _clock(int(entry))
                    total += (int(stat[13]) + int(stat[14])) / os.sysconf("SC_CLK_TCK")
        return total - self._before


def _clock(pid: int) -> float:
    """Seconds of CPU of one process, as MAKE_PROCESS_CPUCLOCK of the kernel names its clock."""
    return time.clock_gettime(~pid << 3 | 2)


@functools.lru_cache(maxsize=1)
def ksmtuned_script() -> str:
    """Text of Debian's script; downloaded once, then kept. Raises debian.Unavailable."""
    package = debian.unpacked("ksmtuned", KSMTUNED_SUITE, CACHE)
    return (package / "usr/sbin/ksmtuned").read_text()


@contextlib.contextmanager
def ksmtuned_changed() -> Iterator[Path]:
    """The script as this bench runs it; its PIDFILE comes from the environment."""
    text = ksmtuned_script()
    with tempfile.TemporaryDirectory(prefix="tuned-virt-bench-") as folder:
        conf = Path(folder) / "ksmtuned.conf"
        conf.write_text(KSMTUNED_CONF)
        for theirs, ours in KSMTUNED_CHANGES:
            if theirs not in text:
                raise RivalFailed(f"this ksmtuned has no {theirs}")
            text = text.replace(theirs, ours.format(conf=conf))
        script = Path(folder) / "ksmtuned"
        script.write_text(text)
        yield script


@contextlib.contextmanager
def running(argv: list[str], env: Mapping[str, str] | None = None) -> Iterator[Controller]:
    """A controller from its line "ready" on; it ends with its stdin."""
    process = subprocess.Popen(
        argv,
        cwd=REPO,
        env={**os.environ, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise RivalFailed(f"{argv[0]} … did not start; its stderr says why")
        yield Controller(process)
    finally:
        process.stdin.close()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextlib.contextmanager
def ksmtuned() -> Iterator[Controller]:
    """The script in a process group that ends, with all in it, when stdin does.

    Its own way of ending leaves its sleeping children.
    """
    with ksmtuned_changed() as script:
        hold = f"bash {script}; echo ready; cat; kill -KILL 0"
        with running(["bash", "-c", hold], {"PIDFILE": f"{script}.pid"}) as controller:
            yield controller


@contextlib.contextmanager
def auto() -> Iterator[Controller]:
    """Our controller."""
    command = [PYTHON, "-m", "bench.ksm_auto", "--log", str(AUTO_LOG), *AUTO]
    with running(command) as controller:
        yield controller


@contextlib.contextmanager
def fixed(**settings: str) -> Iterator[Controller]:
    """Nobody: ksmd scans with these settings, written once."""
    put({**settings, "run": "1"})
    yield Controller()


@contextlib.contextmanager
def advisor() -> Iterator[Controller]:
    """The kernel's advisor. It is billed for all that ksmd did before, so only the first is new."""
    print(f"  advisor starts after {Ksmd().cpu():.0f} s of ksmd's CPU", flush=True)
    with fixed(advisor_mode="scan-time") as controller:
        yield controller


def age(seconds: float = AGED) -> None:
    """Let ksmd scan until it has burnt that much CPU since boot."""
    ksmd = Ksmd()
    if ksmd.cpu() >= seconds:
        return
    print(f"  ageing ksmd from {ksmd.cpu():.0f} to {seconds:.0f} s of CPU", flush=True)
    with Host(alike=False) as host:
        for guest in host.start_ready(2):
            guest.arrive()
        put({"smart_scan": "0", "pages_to_scan": "20000", "sleep_millisecs": "0", "run": "1"})
        while ksmd.cpu() < seconds:
            time.sleep(0.5)
        put({"run": "0"})
    reset()


Rival = Callable[[], contextlib.AbstractContextManager[Controller]]

RIVALS: Mapping[str, Rival] = MappingProxyType(
    {
        "advisor": advisor,
        "auto": auto,
        "1250/10": functools.partial(fixed, pages_to_scan="1250", sleep_millisecs="10"),
        "ksmtuned": ksmtuned,
        "default": fixed,
        "advisor-aged": advisor,
    }
)
"""In the order of running: the advisor while ksmd is young."""

USUAL = ("advisor", "auto", "1250/10", "ksmtuned", "advisor-aged")
"""What is run unless asked otherwise."""

PREPARE: Mapping[str, Callable[[], None]] = MappingProxyType({"advisor-aged": age})
"""What is done before the guests are made."""
