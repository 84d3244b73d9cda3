# SPDX-License-Identifier: GPL-2.0-or-later
"""Profiles to preview."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.tuned_api.preview.profiles import Profiles


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profiles:
    return Profiles(tmp_path, monkeypatch)
