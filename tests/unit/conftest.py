# SPDX-License-Identifier: GPL-2.0-or-later
"""For the unit tests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import Phase, settings

from tests.schemas import valid
from tuned_virt.cli import json_output, restore

# A loaded machine is no defect, so nothing has a deadline.
settings.register_profile("quick", deadline=None, max_examples=10)
settings.register_profile("thorough", deadline=None, max_examples=200)
settings.register_profile(  # the same examples each time, and no time spent on the smallest one
    "mutants",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=10,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("thorough" if os.environ.get("CI") == "true" else "quick")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are CPUs: some tests wait for a thread, or for a command."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True)
def schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a command prints as JSON in a unit test is what its schema says."""
    document = json_output.document

    def described(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
        made = document(kind, content)
        valid(made)
        return made

    monkeypatch.setattr(json_output, "document", described)


@pytest.fixture(autouse=True)
def nothing_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No unit test records this machine's profile in its /etc."""
    monkeypatch.setattr(restore, "_remember_profile", lambda: None)
