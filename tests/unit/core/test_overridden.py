# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings for TuneD's own plugins that another profile overrides are told with its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tuned_virt.core.active_profile import ActiveProfile
from tuned_virt.core.installed_profiles import InstalledProfiles
from tuned_virt.core.overridden import (
    AppliedSection,
    Overridden,
    ProfilesInForce,
    overridden,
)
from tuned_virt.core.section_settings import SectionSettings
from tuned_virt.core.settings import Setting
from tuned_virt.core.system_root import SystemRoot
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins.crash_guard import TUNED_CHOICES, TUNED_SETTINGS

PROFILES = {
    "throughput-performance": (
        "[sysctl]\nvm.swappiness=10\n[cpu]\ngovernor=performance\n[disk]\nreadahead=>4096\n"
    ),
    "virt-plus-power-balanced": "[cpu]\ngovernor=schedutil\nenergy_perf_bias=normal\n",
    "powersave": "[cpu]\ngovernor=powersave\n[disk]\nreadahead=128\n",
    "latency": "[cpu]\nforce_latency=1\n[fast]\ntype=cpu\ndevices=cpu0\ngovernor=performance\n",
    "replacing": "[sysctl]\nreplace=1\nkernel.x=1\n[cpu]\nenabled=false\n",
    "virtual-host": "[main]\ninclude=throughput-performance\n[cpu]\nforce_latency=70\n",
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


MERGED = {
    "sysctl": AppliedSection("sysctl", {"vm.swappiness": "${virt_plus_swappiness}"}),
    "mine": AppliedSection("sysctl", {"vm.swappiness": "1"}),
    "vm": AppliedSection("vm", {"dirty_bytes": "9%"}),
}
"""What has become of the sections of virtual-host-plus and database."""


def sections(**named: dict[str, str]) -> dict[str, AppliedSection]:
    """Merged sections, each of the plugin of its name."""
    return {name: AppliedSection(name, options) for name, options in named.items()}


def found(
    system: SystemRoot,
    active: str,
    values: dict[str, str],
    merged: Mapping[str, AppliedSection],
    **settings: str,
) -> list[Overridden]:
    for path, value in values.items():
        file = Path(system.root) / (path.lstrip("/") if path[0] == "/" else f"proc/sys/{path}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
    lines = {name: Setting(name, text, 3) for name, text in settings.items()}
    asked = SectionSettings("/etc/x.conf", lines=lines)
    fs, profiles = KernelFS(system.root), InstalledProfiles(system)
    force = ProfilesInForce(fs, profiles, ActiveProfile(tuple(active.split())), merged)
    return list(overridden(asked, TUNED_SETTINGS, TUNED_CHOICES, force))


def told(
    system: SystemRoot,
    active: str,
    values: dict[str, str],
    merged: Mapping[str, AppliedSection] = MERGED,
    **settings: str,
) -> list[str]:
    lines = found(system, active, values, merged, **settings)
    assert all(one.fails for one in lines)
    return [one.text for one in lines]


@pytest.mark.parametrize(
    ("active", "now", "said"),
    [
        ("virtual-host-plus database", "1", "the profile database sets vm.swappiness=1 in [mine]"),
        ("child", "60", "the profile child sets vm.swappiness=60 in [sysctl]"),
    ],
)
def test_who_has_won_is_named(system: SystemRoot, active: str, now: str, said: str) -> None:
    merged = MERGED if active != "child" else sections(sysctl={"vm.swappiness": "60"})
    [line] = told(system, active, {"vm/swappiness": now}, merged, swappiness="7")
    assert line.startswith(
        f"'swappiness' = '{now}', expected '7': /etc/x.conf: line 3 does not hold: "
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
        ("virtual-host-plus database", "1", {"swappiness": "abc", "power": "abc"}),
    ],
)
def test_what_holds_was_not_set_or_nobody_else_sets_is_not_told(
    system: SystemRoot, active: str, now: str, settings: dict[str, str]
) -> None:
    """TuneD's own plugin says what has changed since."""
    assert told(system, active, {"vm/swappiness": now}, MERGED, **settings) == []


SYSCTL_D = "/etc/sysctl.d/99-db.conf"


@pytest.mark.parametrize(
    ("files", "values", "said"),
    [
        ({SYSCTL_D: "# x\nvm.swappiness = 60"}, {"vm/swappiness": "60"}, f"{SYSCTL_D}:2 sets"),
        ({SYSCTL_D: "vm/swappiness=60"}, {"vm/swappiness": "60"}, f"{SYSCTL_D}:1 sets"),
        (
            {SYSCTL_D: "vm.swappiness=50", "/etc/sysctl.conf": "vm.swappiness=60"},
            {"vm/swappiness": "60"},
            "/etc/sysctl.conf:1 sets",
        ),
        (
            {SYSCTL_D: "vm.swappiness=60", "/run/sysctl.d/99-db.conf": "vm.swappiness=1"},
            {"vm/swappiness": "60"},
            f"{SYSCTL_D}:1 sets",
        ),
        ({SYSCTL_D: "vm.dirty_bytes=209715200"}, {"vm/dirty_ratio": "0"}, f"{SYSCTL_D}:1 sets"),
    ],
)
def test_a_sysctl_file_that_tuned_applies_after_the_profile_is_named(
    system: SystemRoot, files: dict[str, str], values: dict[str, str], said: str
) -> None:
    """reapply_sysctl is on by default: redhat-performance/tuned pull requests 492 and 501."""
    settings = {"swappiness": "7"} if "vm/swappiness" in values else {"dirty_ratio": "20"}
    [line] = told(system, "virtual-host-plus", {**files, **values}, MERGED, **settings)
    assert f"does not hold: {said}" in line
    assert line.endswith("or set reapply_sysctl=0 in /etc/tuned/tuned-main.conf")


def test_a_sysctl_file_that_somebody_else_has_applied_since(system: SystemRoot) -> None:
    main = {"/etc/tuned/tuned-main.conf": "reapply_sysctl = 0"}
    files = {**main, SYSCTL_D: "vm.swappiness=60", "vm/swappiness": "60"}
    [line] = told(system, "virtual-host-plus", files, swappiness="7")
    assert line.endswith(
        f"{SYSCTL_D}:1 sets vm.swappiness=60, which was applied after the profile; activate the"
        " profile again"
    )


def test_bytes_and_percent_in_one_file(system: SystemRoot) -> None:
    values = {"vm/dirty_ratio": "0", "vm/dirty_bytes": str(2**34)}
    asked = {"dirty_ratio": "20", "dirty_bytes": str(2**34)}
    [line] = told(system, "virtual-host-plus", values, MERGED, **asked)
    assert line.startswith(
        "'dirty_ratio' = '0', expected '20': /etc/x.conf: line 3 does not hold: "
    )
    assert line.endswith(f"sets dirty_bytes={2**34}, and the kernel has only one of the two")
    values["vm/dirty_bytes"] = "8192"
    merged = sections(vm={"dirty_bytes": "9%"}, sysctl={"vm.dirty_bytes": "${f:virt_plus:…}"})
    [line] = told(system, "virtual-host-plus database", values, merged, dirty_bytes=str(2**34))
    assert "the profile database sets dirty_bytes=9% in [vm]" in line


def test_a_sysctl_file_that_has_not_won_is_not_blamed(system: SystemRoot) -> None:
    file = {SYSCTL_D: "vm.swappiness=50\nkernel.x=1"}
    assert told(system, "virtual-host-plus", {**file, "vm/swappiness": "7"}, swappiness="7") == []
    [line] = told(
        system, "virtual-host-plus database", {**file, "vm/swappiness": "1"}, swappiness="7"
    )
    assert "the profile database sets" in line


def test_a_section_that_takes_ours_away_is_named(system: SystemRoot) -> None:
    """redhat-performance/tuned issue 252: replace=1 drops what the profiles before have set."""
    merged = sections(sysctl={"kernel.x": "1"})
    [line] = told(
        system, "virtual-host-plus replacing", {"vm/swappiness": "60"}, merged, swappiness="7"
    )
    assert line.endswith("does not hold: the profile replacing has replace=1 in [sysctl]")
    [line] = told(system, "virtual-host-plus", {"vm/swappiness": "60"}, merged, swappiness="7")
    assert line.endswith(
        "no section of the active profile sets vm.swappiness; TuneD's log says why"
    )


STOCK = {"governor": "performance", "force_latency": "70"}


@pytest.mark.parametrize(
    ("other", "word", "cpu", "said"),
    [
        ("powersave", "balanced", {"governor": "powersave", "energy_perf_bias": "normal"},
         ["'power' = 'governor=powersave', expected 'balanced': /etc/x.conf: line 3 does not hold:"
          " the profile powersave sets governor=powersave in [cpu]"]),
        ("powersave", "balanced", {"governor": "schedutil", "energy_perf_bias": "normal"}, []),
        ("powersave", "stock", {**STOCK, "governor": "powersave"},
         ["the profile powersave sets governor=powersave in [cpu]"]),
        ("powersave", "stock", STOCK, []),
        ("powersave", "stock", {**STOCK, "energy_perf_bias": "x"}, []),
        ("latency", "balanced",
         {"governor": "schedutil", "energy_perf_bias": "normal", "force_latency": "1"},
         ["the profile latency sets force_latency=1 in [cpu]"]),
        ("replacing", "balanced", {}, ["'power' = 'no governor', expected 'balanced'",
                                       "the profile replacing has enabled=false in [cpu]"]),
        ("other", "balanced", {}, ["no section of the active profile sets energy_perf_bias"]),
        ("other", "keep", STOCK, ["the stock profile's is not left out"]),
    ],
)  # fmt: skip
def test_who_has_won_over_the_choice_of_power(
    system: SystemRoot, other: str, word: str, cpu: dict[str, str], said: list[str]
) -> None:
    merged = sections(**({"cpu": cpu} if cpu else {}))
    lines = told(system, f"virtual-host-plus {other}", {}, merged, power=word)
    assert bool(lines) == bool(said)
    assert all(any(one in line for line in lines) for one in said), lines


def test_another_section_of_the_same_plugin_takes_devices_away(system: SystemRoot) -> None:
    merged = {
        "cpu": AppliedSection("cpu", {"governor": "schedutil", "energy_perf_bias": "normal"}),
        "fast": AppliedSection("cpu", {"governor": "performance"}),
    }
    [line] = told(system, "virtual-host-plus latency", {}, merged, power="balanced")
    assert line.endswith("the profile latency sets governor=performance in [fast]")


def test_read_ahead_that_another_profile_sets(system: SystemRoot) -> None:
    disk = sections(disk={"readahead": "128"})
    [line] = told(system, "virtual-host-plus powersave", {}, disk, read_ahead="stock")
    assert line.startswith("'read_ahead' = 'readahead=128', expected 'stock': /etc/x.conf: line 3")
    [note] = found(system, "virtual-host-plus powersave", {}, disk, read_ahead="keep")
    assert note == Overridden(
        "'read_ahead': /etc/x.conf: line 3: the profile powersave sets readahead=128 in [disk]",
        fails=False,
    )
    assert found(system, "virtual-host-plus powersave", {}, disk) == []


def test_what_only_raises_a_value_holds_where_it_is_higher(system: SystemRoot) -> None:
    assert told(system, "child", {"net/ipv4/conf/all/arp_filter": "1"}, arp_filter="0") == []


def test_a_file_that_the_kernel_does_not_have(system: SystemRoot) -> None:
    assert told(system, "child", {}, swappiness="7") == []
