# SPDX-License-Identifier: GPL-2.0-or-later
"""What was advised in the last minutes."""

from __future__ import annotations

from pathlib import Path

from tuned_virt.numad.advice import LASTS, Advised
from tuned_virt.numad.advice_record import AdviceRecord, Lately


def test_advice_is_kept_for_some_minutes(tmp_path: Path) -> None:
    record = AdviceRecord(str(tmp_path / "own"))
    assert record.read(0.0) == Lately()
    some = [
        Advised((0, 1), 4, 8192, {0: 100, 1: 200}, 50.0),
        Advised((1,), 4, 8192, {1: 200}, 51.0, huge=True, guest=17),
    ]
    with record.locked():
        record.write(some, [17, 4])
    assert record.read(60.0) == Lately(some, frozenset({4, 17}))
    assert record.read(50.0 + LASTS).advised == some[1:]
    assert record.read(40.0).advised == [], "of before a clock that was set back"
    (tmp_path / "own/numad.json").write_text("{}")
    assert record.read(60.0) == Lately()
