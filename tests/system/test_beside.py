# SPDX-License-Identifier: GPL-2.0-or-later
"""Our profiles beside others with kernel arguments, merged by each generation's own loader."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox import PYTHON, REPO, tuned_layer

LOADED = """
import json, logging, sys
sys.path.append(sys.argv[3])
from tuned_virt.tuned_api import import_hook
import_hook.install()
from tuned.plugins.plugin_bootloader import BootloaderPlugin
from tuned.profiles import factory, loader, locator, merger, variables
from tuned.utils.global_config import GlobalConfig
known = variables.Variables()
folders, names = sys.argv[1].split(), sys.argv[2]
parts = locator.Locator(folders), factory.Factory(), merger.Merger(), GlobalConfig(), known
profile = loader.Loader(*parts).load(names)
unit = profile.units.get("bootloader")
plugin = object.__new__(BootloaderPlugin)
said = None
if unit is not None:
    options = plugin._get_effective_options(unit.options)
    said = [unit.uname_regex, known.expand(options["cmdline"]).strip()]
units = {
    name: {
        "uname_regex": unit.uname_regex,
        "enabled": unit.enabled,
        "options": {key: known.expand(str(text)) for key, text in unit.options.items()},
    }
    for name, unit in profile.units.items()
}
print(json.dumps({"bootloader": said, "units": units}))
"""
"""Print the merged sections, and of [bootloader] the arguments that TuneD writes."""

OURS = ("virtual-host-plus", "virtual-guest-plus")
POWER = ("virt-plus-power-balanced", "virt-plus-power-keep")
THEIRS = "mce=on quiet"
PAGES = "hugepagesz=1G hugepages=0:1"
SETTINGS = "hugepages_1G=0:1\n"
AUTO = f"{SETTINGS}hugepages_boot=auto\n"

SITE = {
    "kernel_settings": f"[bootloader]\ncmdline={THEIRS}\n",
    "child": f"[main]\ninclude=OURS\n[bootloader]\ncmdline_site={THEIRS}\n",
}


def part(ours: str) -> str:
    """The part of our profile that has its sections for TuneD's own plugins."""
    return f"virt-plus-{ours.split('-')[1]}"


class Loaded:
    """The profiles of this checkout and others, loaded by one generation of TuneD."""

    def __init__(self, version: str, folder: Path, ours: str) -> None:
        self.python = tuned_layer(version) / "usr/lib/python3/dist-packages"
        stock = tuned_layer(version) / "usr/lib/tuned"
        self.folders = [stock / "profiles" if (stock / "profiles").exists() else stock]
        self.mine = folder / "profiles"
        self.ours = ours
        self.settings = folder / "variables.conf"
        for name in (ours, part(ours), "virt-plus-boot", *POWER):
            shutil.copytree(REPO / "profiles" / name, self.mine / name)
            text = (self.mine / name / "tuned.conf").read_text()
            text = text.replace(f"/etc/tuned/{ours}-variables.conf", str(self.settings))
            (self.mine / name / "tuned.conf").write_text(text)
        for name, text in SITE.items():
            self.add(name, text.replace("OURS", ours))

    def add(self, name: str, text: str) -> None:
        """Another profile."""
        (self.mine / name).mkdir()
        (self.mine / name / "tuned.conf").write_text(text)

    def bootloader(self, names: str) -> list[str | None] | None:
        """The merged section's uname_regex and arguments; None where there is no such section."""
        found: list[str | None] | None = self._load(names)["bootloader"]
        return found

    def units(self, names: str) -> dict[str, Any]:
        """The merged sections: of each its uname_regex, and its options with values expanded."""
        found: dict[str, Any] = self._load(names)["units"]
        return found

    def _load(self, names: str) -> dict[str, Any]:
        folders = " ".join(str(one) for one in (*self.folders, self.mine))
        done = subprocess.run(
            [PYTHON, "-c", LOADED, folders, names, str(REPO)],
            env={"PYTHONPATH": str(self.python), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        self.log = done.stderr
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return said


@pytest.fixture(params=OURS)
def ours(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def loaded(version: str, ours: str, tmp_path: Path) -> Loaded:
    return Loaded(version, tmp_path, ours)


@pytest.mark.parametrize(
    "settings", ["", SETTINGS, "#hugepages_boot=auto\n", f"{AUTO}hugepages_boot=never\n"]
)
def test_without_pages_at_boot_there_is_no_section_of_ours(
    loaded: Loaded, ours: str, settings: str
) -> None:
    """So that TuneD does not even load its plugin, which writes whatever the arguments are."""
    loaded.settings.write_text(settings)
    assert loaded.bootloader(ours) is None
    assert loaded.bootloader(f"{ours} kernel_settings") == [None, THEIRS]
    assert loaded.bootloader(f"kernel_settings {ours}") == [None, THEIRS]
    assert loaded.bootloader("child") == [None, THEIRS]


def test_with_pages_at_boot_arguments_are_joined(loaded: Loaded, ours: str) -> None:
    loaded.settings.write_text(AUTO)
    assert loaded.bootloader(ours) == [None, PAGES]
    assert loaded.bootloader(f"{ours} kernel_settings") == [None, f"{PAGES} {THEIRS}"]
    assert loaded.bootloader(f"kernel_settings {ours}") == [None, f"{THEIRS} {PAGES}"]
    assert loaded.bootloader("child") == [None, f"{PAGES} {THEIRS}"]


@pytest.mark.parametrize("observe", ["1", "yes", "true  # for now"])
def test_observing_adds_no_arguments(loaded: Loaded, ours: str, observe: str) -> None:
    loaded.settings.write_text(f"{AUTO}observe={observe}\n")
    assert loaded.bootloader(ours) is None
    assert loaded.bootloader(f"{ours} kernel_settings") == [None, THEIRS]


@pytest.mark.parametrize(
    "line",
    [
        "hugepages_boot = auto",
        "hugepages_boot=auto  # at boot",
        "hugepages_boot=never\nhugepages_boot=auto\nobserve=off",
        "hugepages_boot=auto\r\nobserve=0\r",
    ],
)
def test_the_file_is_read_as_tuned_reads_it(loaded: Loaded, ours: str, line: str) -> None:
    loaded.settings.write_text(f"{SETTINGS}{line}")
    assert loaded.bootloader(ours) == [None, PAGES]


def test_a_file_that_is_not_there_and_one_that_asks_for_what_cannot_be(
    loaded: Loaded, ours: str
) -> None:
    """The text of the call itself would break the boot loader's configuration."""
    assert loaded.bootloader(ours) is None
    loaded.settings.write_text("hugepages_1G=99:1\nhugepages_boot=auto\n")
    assert loaded.bootloader(f"{ours} kernel_settings") == [None, THEIRS]
    assert "99:1" in loaded.log


@pytest.mark.parametrize("partitioned", ["{},partitioning", "partitioning,{}"])
def test_cpu_partitioning_keeps_its_arguments(loaded: Loaded, ours: str, partitioned: str) -> None:
    """A section like TuneD's cpu-partitioning has, whose file of variables is not ours to write."""
    section = "cmdline_cpu_part=+nohz=on nohz_full=2-3\ninitrd_add_dir=/tmp/x\n"
    loaded.add("partitioning", f"[bootloader]\n{section}")
    loaded.add("both", f"[main]\ninclude={partitioned.format(ours)}\n")
    for settings, pages in (("", set()), (AUTO, set(PAGES.split()))):
        loaded.settings.write_text(settings)
        found = loaded.bootloader("both")
        assert found is not None and found[1] is not None
        assert set(found[1].split()) == {"nohz=on", "nohz_full=2-3", *pages}


LATENCY = {"governor", "energy_perf_bias", "min_perf_pct", "force_latency"}
"""What stock virtual-host sets of power on each generation of TuneD."""


def host(version: str, tmp_path: Path, text: str) -> Loaded:
    found = Loaded(version, tmp_path, "virtual-host-plus")
    found.settings.write_text(text)
    return found


def test_power_is_stocks_by_default(version: str, tmp_path: Path) -> None:
    cpu = host(version, tmp_path, "").units("virtual-host-plus")["cpu"]
    assert cpu["enabled"]
    assert cpu["options"].keys() >= LATENCY
    assert cpu["options"]["governor"] == "performance"


def test_balanced_power_has_no_limits_of_stocks(version: str, tmp_path: Path) -> None:
    units = host(version, tmp_path, "power=balanced\n").units("virtual-host-plus")
    options = units["cpu"]["options"]
    assert units["cpu"]["enabled"]
    assert options["governor"] == "schedutil|ondemand|powersave"
    assert options["energy_perf_bias"] == "normal"
    assert options["energy_performance_preference"] == "balance_performance"
    assert not {"min_perf_pct", "force_latency", "boost"} & options.keys()
    assert not units["acpi"]["enabled"]


def test_power_that_is_kept_is_set_by_no_section(version: str, tmp_path: Path) -> None:
    loaded = host(version, tmp_path, "power=keep\n")
    units = loaded.units("virtual-host-plus")
    assert not units["cpu"]["enabled"]
    assert not units["acpi"]["enabled"]
    loaded.add("later", "[cpu]\nno_turbo=1\n")
    cpu = loaded.units("virtual-host-plus later")["cpu"]
    assert cpu["enabled"]
    assert cpu["options"] == {"no_turbo": "1"}


@pytest.mark.parametrize(("text", "value"), [("", ">4096"), ("read_ahead=512\n", "512")])
def test_read_ahead(loaded: Loaded, ours: str, text: str, value: str) -> None:
    loaded.settings.write_text(text)
    assert loaded.units(ours)["disk"]["options"]["readahead"] == value
