# SPDX-License-Identifier: GPL-2.0-or-later
"""This machine for the KSM bench: the kernel's counters and settings, ksmd, stand-in guests."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import ksm_guest

KSM = Path("/sys/kernel/mm/ksm")
QEMU = "qemu-system-x86_64"
PYTHON = "/usr/bin/python3"
GIB_OF_PAGES = 2**30 // ksm_guest.PAGE

DEFAULTS = {
    "advisor_mode": "none",  # first: while it is on, pages_to_scan is refused
    "advisor_max_cpu": "70",
    "advisor_min_pages_to_scan": "500",
    "advisor_max_pages_to_scan": "30000",
    "advisor_target_scan_time": "200",
    "pages_to_scan": "100",
    "sleep_millisecs": "20",
    "smart_scan": "1",
}
"""The kernel's, in the order of writing."""


def put(settings: dict[str, str]) -> None:
    """Write KSM settings; those that this kernel lacks are left out."""
    for name, value in settings.items():
        if (KSM / name).exists():
            (KSM / name).write_text(value)


def found() -> dict[str, str]:
    """The settings that `reset` changes, as they are."""
    texts = {name: (KSM / name).read_text() for name in DEFAULTS if (KSM / name).exists()}
    return {
        name: text.partition("[")[2].partition("]")[0] or text.strip()
        for name, text in texts.items()
    }


def reset() -> None:
    """Unmerge everything and put the kernel's defaults."""
    put({"run": "2", **DEFAULTS})
    put({"run": "0"})


@contextlib.contextmanager
def settings_kept() -> Iterator[None]:
    """Put the settings back as they were. Raises SystemExit where guests run: they are not ours."""
    if named_qemu():
        raise SystemExit(f"there are guests on this machine: {named_qemu()}; not measured")
    before = {**found(), "run": (KSM / "run").read_text().strip()}
    try:
        yield
    finally:
        reset()
        put(before)


def names() -> Iterator[tuple[int, str]]:
    """Every process's id and name."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry), Path(f"/proc/{entry}/comm").read_text().strip()


def named_qemu() -> list[int]:
    """Ids of the processes that are called QEMU."""
    return [pid for pid, name in names() if name.startswith("qemu-")]


def merged() -> int:
    """Pages that merging saves now."""
    pages = int((KSM / "pages_sharing").read_text())
    zero = KSM / "ksm_zero_pages"
    return pages + (int(zero.read_text()) if zero.exists() else 0)


class Ksmd:
    """The kernel's thread. Raises SystemExit where there is none."""

    def __init__(self) -> None:
        found = [pid for pid, name in names() if name == "ksmd"]
        if not found:
            raise SystemExit("this kernel has no ksmd")
        self._file = Path(f"/proc/{found[0]}/schedstat")

    def cpu(self) -> float:
        """Seconds of CPU since boot."""
        return int(self._file.read_text().split()[0]) / 1e9


def idle() -> float:
    """Seconds that this machine's CPUs were idle since boot; its busy time is only sampled."""
    counts = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return (int(counts[4]) + int(counts[5])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def called_qemu(program: str) -> Iterator[str]:
    """Path of a copy of a program whose name and executable say QEMU."""
    with tempfile.TemporaryDirectory(prefix="tuned-virt-bench-") as folder:
        yield shutil.copy(program, f"{folder}/{QEMU}")


class Guest:
    """One stand-in guest; see bench/ksm_guest.py."""

    def __init__(self, program: str, number: int, pages: str, merging: str) -> None:
        self._process = subprocess.Popen(
            [program, "-S", ksm_guest.__file__, str(number), pages, merging],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONHOME": "/usr"},
            text=True,
            start_new_session=True,
        )

    def _expect(self, line: str) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != f"{line}\n":
            raise RuntimeError(f"a guest ended before it was {line}")

    def wait_until_ready(self) -> None:
        """Until its memory is filled."""
        self._expect("ready")

    def arrive(self) -> None:
        """Let its memory be merged from now on."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self._expect("merging")

    def kill(self) -> None:
        """End it, now."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()


class Host:
    """Starts guests, and ends them with the with block."""

    def __init__(self, alike: bool = True) -> None:
        self._alike = alike
        self._stack = contextlib.ExitStack()
        self._program = ""
        self._count = 0

    def __enter__(self) -> Host:
        self._program = self._stack.enter_context(called_qemu(PYTHON))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, merging: str = "waits") -> Guest:
        """A guest that begins to fill its memory; it can be merged once it arrives, or at once."""
        self._count += 1
        pages = "alike" if self._alike else "unique"
        guest = Guest(self._program, self._count, pages, merging)
        self._stack.callback(guest.kill)
        return guest

    def start_ready(self, count: int) -> list[Guest]:
        """Guests with their memory filled."""
        guests = [self.start() for _ in range(count)]
        for guest in guests:
            guest.wait_until_ready()
        return guests


@contextlib.contextmanager
def tiny_guests(count: int) -> Iterator[None]:
    """Processes that are QEMU by name and executable, and do nothing."""
    with called_qemu("/bin/cat") as program, contextlib.ExitStack() as stack:
        end, hold = os.pipe()  # they end with the process that holds it
        with os.fdopen(end), os.fdopen(hold):
            for _ in range(count):
                process = subprocess.Popen([program], stdin=end, start_new_session=True)
                stack.callback(process.wait)
                stack.callback(process.kill)
            yield
            stack.close()
