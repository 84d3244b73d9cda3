# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kickstart's %post leaves: the profile is active once TuneD has started."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm.daemon import Tuned
from tests.vm.kernel import State
from tests.vm.test_profiles import assert_back, run

KICKSTARTS = Path(__file__).resolve().parents[2] / "docs/kickstart"


@pytest.mark.parametrize("role", ["host", "guest"])
def test_the_first_start_applies_what_the_post_script_enabled(
    role: str, tuned: Tuned, before: State
) -> None:
    text = (KICKSTARTS / f"{role}.ks").read_text()
    [enable] = [line for line in text.splitlines() if line.startswith("tuned-virt enable ")]
    tuned.stop()
    tuned.forget_profile()
    run(*enable.split())
    tuned.start()
    assert tuned.call("active_profile") == f"virtual-{role}-plus"
    verified, lines = tuned.verify()
    assert verified, lines
    tuned.off()
    assert_back(before)
