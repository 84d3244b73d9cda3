# SPDX-License-Identifier: GPL-2.0-or-later
"""For all tiers."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.published.sources import ABSENT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many tests did not run because what others publish is not here, and why; also with -q."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = (report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple))
    counted = Counter(reason.partition(ABSENT)[2] for reason in reasons if ABSENT in reason)
    for reason, count in counted.items():
        terminalreporter.write_line(f"not run: {count} tests {ABSENT}{reason}", yellow=True)
