# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests in a booted machine share. They change the kernel, so they run nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm import disks, machine
from tests.vm.daemon import Tuned
from tests.vm.kernel import State, put_back, state

MARKER = "tuned_virt_vm="


WATCHED = 20
"""Seconds that a test watches what should do nothing, unless `--watched` says otherwise."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long is watched what should do nothing."""
    parser.addoption("--watched", type=int, default=WATCHED, metavar="SECONDS")


@pytest.fixture
def watched(request: pytest.FixtureRequest) -> int:
    """Seconds that a test watches what should do nothing."""
    seconds: int = request.config.getoption("--watched")
    return seconds


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
    with machine.system_bus() as socket:
        yield socket


@pytest.fixture(scope="session")
def product() -> None:
    """This checkout installed for the machine's TuneD; the guest forgets it when it ends."""
    machine.install_product()


@pytest.fixture(scope="session")
def emulated(product: None) -> None:
    """The tools for disks, and a disk of each kind."""
    disks.unpack_tools()
    disks.load()


@pytest.fixture(scope="session")
def daemon(system_bus: Path, product: None) -> Iterator[Tuned]:
    """The machine's TuneD, one for all tests because its start takes seconds."""
    daemon = Tuned()
    yield daemon
    if daemon.running:
        daemon.stop()


@pytest.fixture
def before() -> State:
    """The kernel's state as the test finds it."""
    return state()


@pytest.fixture
def tuned(daemon: Tuned, before: State) -> Iterator[Tuned]:
    """A running TuneD without a profile; however the test ends, the kernel is put back."""
    if not daemon.running:
        daemon.forget_profile()
        daemon.start()
    yield daemon
    if daemon.running:
        daemon.off()
    put_back(before)
