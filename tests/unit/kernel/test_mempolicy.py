# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from tuned_virt.kernel import mempolicy


def test_where_it_cannot_be_set_the_work_is_done_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(mempolicy, "CALL_NUMBER", {})
    with mempolicy.interleaved({0, 1}):
        pass
    assert "memory policy not set" in caplog.text
    monkeypatch.undo()
    with mempolicy.interleaved({900, 901}):
        pass
    assert "memory policy not set: " in caplog.text
