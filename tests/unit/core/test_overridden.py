# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings for TuneD's own plugins that another profile overrides are told with its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuned_virt.core.active_profile import ActiveProfile
from tuned_virt.core.installed_profiles import InstalledProfiles
from tuned_virt.core.overridden import overridden
from tuned_virt.core.section_settings import SectionSettings
from tuned_virt.core.settings import Setting
from tuned_virt.core.system_root import SystemRoot
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins.crash_guard import TUNED_SETTINGS

PROFILES = {
    "throughput-performance": "[sysctl]\nvm.swappiness=10\n",
    "virtual-host": "[main]\ninclude=throughput-performance\n",
    "virt-plus-host": "[sysctl]\nvm.swappiness=${virt_plus_swappiness}\n",
    "virtual-host-plus": "[main]\ninclude=virtual-host,-${f:virt_plus:parts:virt-plus-host:x}\n",
    "database": "[mine]\ntype=sysctl\nvm.swappiness=1\n[vm]\ndirty_bytes=9%\n",
    "child": "[main]\ninclude=virtual-host-plus\n[sysctl]\nvm.swappiness = 60\n",
    "other": "[sysctl]\nkernel.x=1\n",
}


@pytest.fixture
def system(tmp_path: Path) -> SystemRoot:
    for name, text in PROFILES.items():
        folder = tmp_path / "etc/tuned" / name
        folder.mkdir(parents=True)
        (folder / "tuned.conf").write_text(text)
    return SystemRoot(tmp_path)


def told(system: SystemRoot, active: str, values: dict[str, str], **settings: str) -> list[str]:
    for path, value in values.items():
        file = Path(system.root) / f"proc/sys/{path}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
    lines = {name: Setting(name, text, 3) for name, text in settings.items()}
    found = SectionSettings("/etc/x.conf", lines=lines)
    fs, profiles = KernelFS(system.root), InstalledProfiles(system)
    active_now = ActiveProfile(tuple(active.split()))
    return list(overridden(found, TUNED_SETTINGS, fs, profiles, active_now))


@pytest.mark.parametrize(
    ("active", "now", "said"),
    [
        ("virtual-host-plus database", "1", "profile database sets vm.swappiness=1 in [mine]"),
        ("child", "60", "the profile child sets vm.swappiness=60 in [sysctl]"),
    ],
)
def test_who_has_won_is_named(system: SystemRoot, active: str, now: str, said: str) -> None:
    [line] = told(system, active, {"vm/swappiness": now}, swappiness="7")
    assert line.startswith(
        f"/etc/x.conf: line 3: 'swappiness=7' does not hold: /proc/sys/vm/swappiness is {now}; "
    )
    assert said in line


def test_a_value_in_bytes_zeroes_the_ratio(system: SystemRoot) -> None:
    [line] = told(system, "virtual-host-plus database", {"vm/dirty_ratio": "0"}, dirty_ratio="20")
    assert "the profile database sets dirty_bytes=9% in [vm]" in line


@pytest.mark.parametrize(
    ("active", "now", "settings"),
    [
        ("virtual-host-plus database", "7", {"swappiness": "7"}),
        ("virtual-host-plus database", "1", {}),
        ("virtual-host-plus", "60", {"swappiness": "7"}),
        ("virtual-host-plus other", "60", {"swappiness": "7"}),
        ("virtual-host-plus database", "9", {"swappiness": ">7"}),
        ("virtual-host-plus database", "5", {"swappiness": "<7"}),
        ("virtual-host-plus database", "1", {"swappiness": "abc"}),
    ],
)
def test_what_holds_was_not_set_or_nobody_else_sets_is_not_told(
    system: SystemRoot, active: str, now: str, settings: dict[str, str]
) -> None:
    """TuneD's own plugin says what has changed since."""
    assert told(system, active, {"vm/swappiness": now}, **settings) == []


def test_what_only_raises_a_value_holds_where_it_is_higher(system: SystemRoot) -> None:
    assert told(system, "child", {"net/ipv4/conf/all/arp_filter": "1"}, arp_filter="0") == []


def test_a_file_that_the_kernel_does_not_have(system: SystemRoot) -> None:
    assert told(system, "child", {}, swappiness="7") == []
