# SPDX-License-Identifier: GPL-2.0-or-later
"""The system tier: real TuneD daemons in sandboxes, as root, on this machine's kernel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.libvirtd import Libvirtd
from tests.machine_in_use import Unusable, known_state
from tests.sandbox import SUITES, Sandbox, SystemdSandbox, tuned_layer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        pytest.exit("the system tier needs root: sudo make check-system", returncode=2)


def pytest_report_header() -> list[str]:
    return [f"TuneD {_version(generation)} ({suite})" for generation, suite in SUITES.items()]


def _version(generation: str) -> str:
    file = tuned_layer(generation) / "usr/lib/python3/dist-packages/tuned/version.py"
    parts = [line.split("=")[1].strip() for line in file.read_text().splitlines() if "=" in line]
    return ".".join(part for part in parts[:3] if part.isdigit())


@pytest.fixture(scope="session", autouse=True)
def machine_in_known_state(request: pytest.FixtureRequest) -> Iterator[None]:
    """The kernel as it boots and no TuneD of the machine's own; afterwards all is as it was."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{text}", flush=True)

    try:
        with known_state(say):
            yield
    except Unusable as error:
        pytest.exit(str(error), returncode=2)


@pytest.fixture(params=SUITES)
def version(request: pytest.FixtureRequest) -> str:
    """Each TuneD generation in turn."""
    generation: str = request.param
    return generation


@pytest.fixture
def tuned() -> Iterator[Callable[..., Sandbox]]:
    """Opens sandboxes that close with the test: `t = tuned("2.25", profiles=…)`."""
    opened: list[Sandbox] = []

    def open_sandbox(*args: Any, **named: Any) -> Sandbox:
        opened.append(stack.enter_context(Sandbox(*args, **named)))
        return opened[-1]

    with ExitStack() as stack:
        yield open_sandbox
        for t in opened:  # pytest shows it where a test has failed
            print(f"--- tuned.log of {t.version} ---\n{t.log()}")


@pytest.fixture
def tuned_service(version: str) -> Iterator[SystemdSandbox]:
    """A machine booted by a real systemd, with TuneD as its service."""
    t = SystemdSandbox(version)
    with t:
        yield t


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[Libvirtd]:
    """A libvirtd of the module's own, outside a sandbox."""
    with Libvirtd() as private:
        yield private


@pytest.fixture
def no_guests_left(libvirtd: Libvirtd) -> Iterator[None]:
    """Its guests end, and are forgotten, with the test."""
    yield
    libvirtd.forget_guests()


@pytest.fixture
def connection(libvirtd: Libvirtd, no_guests_left: None) -> Iterator[Any]:
    """A connection to it."""
    with libvirtd.connection() as opened:
        yield opened
