# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left out of stock profiles while TuneD loads; tests/system/test_beside.py has it with
every generation of TuneD."""

from __future__ import annotations

from pathlib import Path

import pytest
from tuned.profiles.factory import Factory
from tuned.profiles.loader import Loader
from tuned.profiles.locator import Locator
from tuned.profiles.merger import Merger
from tuned.profiles.variables import Variables
from tuned.utils.global_config import GlobalConfig

from tuned_virt.tuned_api import import_hook, loading

PROFILES = {
    "base": "[cpu]\ngovernor=performance\nboost=1\n[disk]\nreadahead=4096\nspindown=1\n",
    "virtual-host": "[main]\ninclude=base\n[cpu]\nforce_latency=1\n[acpi]\nplatform_profile=x\n",
    "virt-plus-power-keep": "[main]\ninclude=-${f:virt_plus:leave_out:cpu:disk.readahead:disk.x}\n",
    "virtual-host-plus": "[main]\ninclude=virtual-host,-virt-plus-power-keep\n",
    "mine": "[main]\ninclude=virtual-host-plus\n[cpu]\ngovernor=powersave\n",
    "other": "[cpu]\nno_turbo=1\n",
    "sharing": "[main]\ninclude=base\n",
}


@pytest.mark.parametrize(
    ("names", "cpu", "disk"),
    [
        ("virtual-host-plus", None, {"spindown": "1"}),
        ("mine", {"governor": "powersave"}, {"spindown": "1"}),
        ("other virtual-host-plus", {"no_turbo": "1"}, {"spindown": "1"}),
        ("virtual-host-plus other", {"no_turbo": "1"}, {"spindown": "1"}),
        (
            "virtual-host-plus sharing",
            {"governor": "performance", "boost": "1"},
            {"readahead": "4096", "spindown": "1"},
        ),
        ("virtual-host other", None, None),
    ],
)
def test_only_the_stock_parents_options_are_left_out(
    names: str, cpu: dict[str, str] | None, disk: dict[str, str] | None, tmp_path: Path
) -> None:
    import_hook.install()
    for name, text in PROFILES.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "tuned.conf").write_text(text)
    parts = (Locator([str(tmp_path)]), Factory(), Merger(), GlobalConfig(), Variables())
    units = Loader(*parts).load(names).units
    if disk is None:
        assert units["cpu"].options.keys() == {"governor", "boost", "force_latency", "no_turbo"}
        return
    assert (dict(units["cpu"].options) if "cpu" in units else None) == cpu
    assert dict(units["disk"].options) == disk
    assert "acpi" in units


def test_outside_of_tuneds_loader_nothing_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    assert loading.leave_out("cpu", "acpi") == ""
    assert "cpu, acpi of the stock profile stays" in caplog.text
