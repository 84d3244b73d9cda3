"""What the tests in a booted machine share. They change the kernel, so they run nowhere else."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

MARKER = "tuned_virt_vm="
PREPARED = ("/run/dbus", "/run/tuned", "/var/log/tuned", "/var/log/libvirt/qemu")
START_SECONDS = 120


def pytest_configure() -> None:
    """Refuse to run where boot.py has not booted the kernel."""
    if MARKER not in Path("/proc/cmdline").read_text():
        raise pytest.UsageError(
            "tests/vm runs only in a machine booted for it: "
            "build/venv/bin/python tests/vm/boot.py --kernels 6.1"
        )


@pytest.fixture(scope="session")
def system_bus() -> Iterator[Path]:
    """Socket of a system D-Bus in a guest prepared for daemons."""
    for folder in PREPARED:
        Path(folder).mkdir(parents=True, exist_ok=True)
    started = subprocess.run(
        ["dbus-daemon", "--system", "--fork", "--print-pid"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    yield Path("/run/dbus/system_bus_socket")
    os.kill(int(started.stdout), signal.SIGTERM)


@pytest.fixture
def start_tuned(
    system_bus: Path, tmp_path: Path
) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Function that starts the machine's TuneD with a profile and waits until it is applied."""
    daemons = []

    def start(profile: str) -> subprocess.Popen[bytes]:
        log = tmp_path / "tuned.log"
        with log.open("wb") as output:
            daemon = subprocess.Popen(
                ["tuned", "--profile", profile], stdout=output, stderr=subprocess.STDOUT
            )
        daemons.append(daemon)
        deadline = time.monotonic() + START_SECONDS
        while not tuned_is_running():
            if daemon.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"tuned did not start:\n{log.read_text()}")
            time.sleep(0.5)
        return daemon

    yield start
    for daemon in daemons:
        daemon.terminate()
        daemon.wait(START_SECONDS)


def tuned_is_running() -> bool:
    """Whether a TuneD on the system bus says that it has applied its profile."""
    call = ["dbus-send", "--system", "--print-reply=literal", "--dest=com.redhat.tuned"]
    reply = subprocess.run(
        [*call, "/Tuned", "com.redhat.tuned.control.is_running"],
        capture_output=True,
        text=True,
        check=False,
    )
    return "true" in reply.stdout
