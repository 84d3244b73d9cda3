# SPDX-License-Identifier: GPL-2.0-or-later
"""Our profiles beside others that set what ours do not, and what ours do, on the running kernel."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sandbox import Sandbox

OURS = "virtual-host-plus"
MAPS, SWAPPINESS = "/proc/sys/vm/max_map_count", "/proc/sys/vm/swappiness"
WATCHDOG = "/proc/sys/kernel/hung_task_warnings"
KSM_RUN = "/sys/kernel/mm/ksm/run"

PROFILES = {
    "kernel_settings": """
[main]
summary = kernel settings
[sysctl]
vm.max_map_count = 65531
kernel.hung_task_warnings = 11
""",
    # of realtime-virtual-host, whose [scheduler] would move this machine's own threads
    "no_ksm": f"[main]\nsummary=no KSM\n[sysfs]\n{KSM_RUN} = 2\n",
    "swaps": "[main]\nsummary=other value\n[sysctl]\nvm.swappiness=33\n",
}


@pytest.fixture
def t(tuned: Callable[..., Sandbox], version: str) -> Sandbox:
    return tuned(version, profiles=PROFILES)


def theirs(t: Sandbox) -> tuple[str, str]:
    return t.read(MAPS), t.read(WATCHDOG)


@pytest.mark.parametrize("names", [f"{OURS} kernel_settings", f"kernel_settings {OURS}"])
def test_another_profiles_values_are_set_verified_and_put_back(t: Sandbox, names: str) -> None:
    before, others = t.snapshot(), theirs(t)
    t.switch(names)
    assert theirs(t) == ("65531", "11")
    assert t.read(SWAPPINESS) == "10"
    assert t.verify(), t.verify_lines
    assert "'vm.max_map_count' = '65531'" in t.verify_lines
    t.write(f"/etc/tuned/{OURS}-variables.conf", "observe=1\n")
    t.switch(names)
    assert theirs(t) == ("65531", "11")
    assert "'vm.max_map_count' = '65531'" in (t.verify(), t.verify_lines)[1]
    t.switch(OURS)
    assert theirs(t) == others
    t.off()
    assert t.snapshot() == before


def test_the_later_profile_wins(t: Sandbox) -> None:
    t.switch(f"{OURS} swaps")
    assert t.read(SWAPPINESS) == "33"
    t.switch(f"swaps {OURS}")
    assert t.read(SWAPPINESS) == "10"


def test_a_post_loaded_profile_beside_ours(t: Sandbox) -> None:
    before, others = t.snapshot(), theirs(t)
    t.terminate()
    t.write("/etc/tuned/post_loaded_profile", "kernel_settings\n")
    t.start()
    t.switch(OURS)
    assert theirs(t) == ("65531", "11")
    assert t.read(SWAPPINESS) == "10"
    assert t.verify(), t.verify_lines
    t.off()
    assert t.snapshot() == before
    assert theirs(t) == others


def test_ours_as_the_post_loaded_profile(t: Sandbox) -> None:
    before, others = t.snapshot(), theirs(t)
    t.terminate()
    t.write("/etc/tuned/post_loaded_profile", f"{OURS}\n")
    t.start()
    t.switch("kernel_settings")
    assert theirs(t) == ("65531", "11")
    assert t.read(SWAPPINESS) == "10"
    assert t.verify(), t.verify_lines
    t.off()
    assert t.snapshot() == before
    assert theirs(t) == others


@pytest.mark.parametrize("names", [f"{OURS} no_ksm", f"no_ksm {OURS}"])
def test_ksm_that_another_profile_stops_stays_stopped(t: Sandbox, names: str) -> None:
    before = t.snapshot()
    t.switch(names)
    assert t.read(KSM_RUN) == "2"
    t.verify()
    assert t.read(KSM_RUN) == "2"
    t.off()
    assert t.snapshot() == before
