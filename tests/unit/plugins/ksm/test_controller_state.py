# SPDX-License-Identifier: GPL-2.0-or-later
"""What KSM's controller keeps on tmpfs."""

from __future__ import annotations

import json
from pathlib import Path

from tuned_virt.plugins.ksm.controller_state import ControllerState, ControllerStateFile
from tuned_virt.plugins.ksm.decision import ControllerMemory, Phase


def test_the_phase_of_an_upgraded_tuned_is_known(tmp_path: Path) -> None:
    """Version 0.1 wrote it as "hands off"."""
    file = ControllerStateFile(tmp_path / "ksm.json")
    file.save(ControllerState("policy", ControllerMemory(phase=Phase.YIELDED)))
    content = json.loads((tmp_path / "ksm.json").read_text())
    content["memory"]["phase"] = "hands off"
    (tmp_path / "ksm.json").write_text(json.dumps(content))
    assert file.load().memory.phase is Phase.YIELDED
