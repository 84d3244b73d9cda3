# SPDX-License-Identifier: GPL-2.0-or-later
"""Plugins that are applied here record nothing in this machine's /etc."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuned_virt.core.system_root import SystemRoot
from tuned_virt.tuned_api import common


@pytest.fixture(autouse=True)
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SystemRoot:
    """The system whose TuneD it is."""
    root = tmp_path / "root"
    (root / "etc/tuned").mkdir(parents=True)
    found = SystemRoot(root)
    monkeypatch.setattr(common, "SystemRoot", lambda: found)
    monkeypatch.setattr(common.PreviousProfile, "_before", None)
    monkeypatch.setattr(common.PreviousProfile, "_unread", None)
    return found
