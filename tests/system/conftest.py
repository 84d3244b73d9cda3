"""The system tier: real TuneD daemons in sandboxes, as root, on this machine's kernel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

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


@pytest.fixture(params=SUITES)
def version(request: pytest.FixtureRequest) -> str:
    """Each TuneD generation in turn."""
    generation: str = request.param
    return generation


@pytest.fixture
def tuned() -> Iterator[Callable[..., Sandbox]]:
    """Opens sandboxes that close with the test: `t = tuned("2.25", profiles=…)`."""
    with ExitStack() as stack:
        yield lambda *args, **named: stack.enter_context(Sandbox(*args, **named))


@pytest.fixture
def tuned_service(version: str) -> Iterator[SystemdSandbox]:
    """A machine booted by a real systemd, with TuneD as its service."""
    t = SystemdSandbox(version)
    with t:
        yield t
