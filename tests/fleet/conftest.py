# SPDX-License-Identifier: GPL-2.0-or-later
"""The fleet's tests need root, and what the system tier needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest

from tests.fleet.hosts import Fleet
from tests.fleet.plays import PROFILES


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        pytest.exit("the fleet's tests need root: sudo make check-fleet", returncode=2)


@pytest.fixture
def fleet() -> Iterator[Callable[..., Fleet]]:
    """Opens fleets that close with the test; each host begins with the profile `before`."""
    with ExitStack() as stack:

        def opened(variables: Mapping[str, Any], **named: Any) -> Fleet:
            found = stack.enter_context(Fleet(variables, PROFILES, **named))
            for host in found.hosts.values():
                if host.booted:
                    host.switch("before")
            return found

        yield opened
