# SPDX-License-Identifier: GPL-2.0-or-later
"""Our profiles beside others with kernel arguments, merged by each generation's own loader."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox import PYTHON, REPO, tuned_layer
from tuned_virt.registry import tuners

OURS = ("virtual-host-plus", "virtual-guest-plus")
KEPT = ("virt-plus-power-balanced", "virt-plus-power-keep", "virt-plus-read-ahead-keep")
THEIRS = "mce=on quiet"
PAGES = "hugepagesz=1G hugepages=0:1"
SETTINGS = "hugepages_1G=0:1\n"
AUTO = f"{SETTINGS}hugepages_boot=auto\n"

SITE = {
    # as the template of RHEL's system role of this name writes it, and its boot loader option
    "kernel_settings": f"""
[main]
summary = kernel settings
[sysctl]
fs.epoll.max_user_watches = 785592
kernel.threads-max = 29968
vm.max_map_count = 65530
[sysfs]
/sys/kernel/debug/x86/pti_enabled = 0
[systemd]
cpu_affinity = 1,3
[vm]
transparent_hugepages = madvise
transparent_hugepage.defrag = defer
[bootloader]
cmdline = {THEIRS}
""",
    # as NVIDIA's and others' profiles for machines with huge pages
    "pages": "[bootloader]\ncmdline_hugepages=hugepagesz=2M hugepages=5128\n",
    "devices": """
[cpu]
uname_regex=x86_64
governor=schedutil
[disk]
devices=sda
readahead=1024
[sysctl]
uname_regex=x86_64
vm.swappiness=3
""",
    "child": f"[main]\ninclude=OURS\n[bootloader]\ncmdline_site={THEIRS}\n",
}


def part(ours: str) -> str:
    """The part of our profile that has its sections for TuneD's own plugins."""
    return f"virt-plus-{ours.split('-')[1]}"


class Loaded:
    """The profiles of this checkout and others, loaded by one generation of TuneD."""

    def __init__(self, version: str, folder: Path, ours: str, merger: Merger) -> None:
        self.merger = merger
        stock = tuned_layer(version) / "usr/lib/tuned"
        self.folders = [stock / "profiles" if (stock / "profiles").exists() else stock]
        self.mine = folder / "profiles"
        self.settings = folder / "variables.conf"
        bytes_parts = [f"{part(ours)}-{end}" for end in ("background-bytes", "dirty-bytes")]
        for name in (ours, part(ours), "virt-plus-boot", *KEPT, *bytes_parts):
            shutil.copytree(REPO / "profiles" / name, self.mine / name)
            text = (self.mine / name / "tuned.conf").read_text()
            text = text.replace(f"/etc/tuned/{ours}-variables.conf", str(self.settings))
            (self.mine / name / "tuned.conf").write_text(text)
        for name, text in SITE.items():
            self.add(name, text.replace("OURS", ours))

    def borrow(self, name: str, variables: str) -> None:
        """A stock profile whose file of variables, which is below /etc, is to have this text."""
        [folder] = self.folders
        file = self.settings.with_name(f"{name}.conf")
        file.write_text(variables)
        text = (folder / name / "tuned.conf").read_text()
        text = re.sub(rf"/etc/tuned/{name}-variables.conf", str(file), text)
        self.add(name, text)

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
        folders = [str(one) for one in (*self.folders, self.mine)]
        found: dict[str, Any] = self.merger.ask(folders, names)
        self.log = found["log"]
        return found


class Merger:
    """A process with one generation of TuneD, which merges profiles."""

    def __init__(self, version: str, *checkout: str) -> None:
        self.process = subprocess.Popen(
            [PYTHON, str(REPO / "tests/merged_profiles.py"), *checkout],
            env={
                "PYTHONPATH": str(tuned_layer(version) / "usr/lib/python3/dist-packages"),
                "PATH": "/usr/bin:/bin",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, folders: list[str], names: str) -> Any:
        """What has become of the profiles."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{json.dumps([folders, names])}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        """End the process."""
        self.process.communicate()


@pytest.fixture(scope="module")
def mergers() -> Iterator[dict[tuple[str, ...], Merger]]:
    """Processes by generation, and by whether our function is there."""
    opened: dict[tuple[str, ...], Merger] = {}
    yield opened
    for one in opened.values():
        one.end()


@pytest.fixture(params=OURS)
def ours(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def merger(mergers: dict[tuple[str, ...], Merger], version: str) -> Callable[..., Merger]:
    def opened(*checkout: str) -> Merger:
        key = (version, *checkout)
        if key not in mergers:
            mergers[key] = Merger(version, *checkout)
        return mergers[key]

    return opened


@pytest.fixture
def loaded(merger: Callable[..., Merger], version: str, ours: str, tmp_path: Path) -> Loaded:
    return Loaded(version, tmp_path, ours, merger(str(REPO)))


@pytest.mark.parametrize(
    "settings", ["", SETTINGS, "#hugepages_boot=auto\n", "hugepages_boot=never\n"]
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
        "observe=off\nhugepages_boot=auto",
        "[variables]\n  hugepages_boot=auto\nobserve=off",
        "hugepages_boot=auto\r\nobserve=0\r",
    ],
)
def test_the_file_is_read_as_tuned_reads_it(loaded: Loaded, ours: str, line: str) -> None:
    loaded.settings.write_text(f"{SETTINGS}{line}")
    assert loaded.bootloader(ours) == [None, PAGES]


@pytest.mark.parametrize("text", [f"{AUTO}hugepages_boot=auto\n", "obsreve=1\n", "swappiness 3\n"])
def test_a_file_with_an_error_is_said_and_the_stock_profile_holds(
    loaded: Loaded, ours: str, text: str
) -> None:
    loaded.settings.write_text(text)
    stock = comparable(loaded.units(ours.removesuffix("-plus")), False)
    assert comparable(loaded.units(ours), False) == stock
    assert f"{loaded.settings}: line " in loaded.log


def test_without_the_function_the_stock_profile_holds(
    loaded: Loaded, ours: str, merger: Callable[..., Merger]
) -> None:
    """As where TuneD's own files have been replaced: its loader says that there is none."""
    loaded.settings.write_text(AUTO)
    stock = comparable(loaded.units(ours.removesuffix("-plus")), False)
    loaded.merger = merger()
    assert comparable(loaded.units(ours), False) == stock
    assert loaded.bootloader(f"{ours} kernel_settings") == [None, THEIRS]
    assert "function 'virt_plus' not implemented" in loaded.log


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


@pytest.fixture
def host(merger: Callable[..., Merger], version: str, tmp_path: Path) -> Loaded:
    return Loaded(version, tmp_path, "virtual-host-plus", merger(str(REPO)))


def test_power_is_stocks_by_default(host: Loaded) -> None:
    host.settings.write_text("")
    cpu = host.units("virtual-host-plus")["cpu"]
    assert cpu["enabled"]
    assert cpu["options"].keys() >= LATENCY
    assert "boost" not in cpu["options"]
    assert cpu["options"]["governor"] == "performance"


def test_balanced_power_has_no_limits_of_stocks(host: Loaded) -> None:
    host.settings.write_text("power=balanced\n")
    units = host.units("virtual-host-plus")
    options = units["cpu"]["options"]
    assert units["cpu"]["enabled"]
    assert options["governor"] == "schedutil|ondemand|powersave"
    assert options["energy_perf_bias"] == "normal"
    assert options["energy_performance_preference"] == "balance_performance"
    assert not {"min_perf_pct", "force_latency", "boost"} & options.keys()
    assert "acpi" not in units


def test_power_that_is_kept_is_set_by_no_section(host: Loaded) -> None:
    host.settings.write_text("power=keep\n")
    units = host.units("virtual-host-plus")
    assert not {"cpu", "acpi"} & units.keys()
    assert "sysctl" in units
    host.add("later", "[cpu]\nno_turbo=1\n")
    cpu = host.units("virtual-host-plus later")["cpu"]
    assert cpu["enabled"]
    assert cpu["options"] == {"no_turbo": "1"}


def test_read_ahead_that_is_kept_is_set_by_no_section(loaded: Loaded, ours: str) -> None:
    loaded.settings.write_text("")
    assert loaded.units(ours)["disk"]["options"] == {"readahead": ">4096"}
    loaded.settings.write_text("read_ahead=keep\n")
    assert "disk" not in loaded.units(ours)
    loaded.add("later", "[disk]\nelevator=none\n")
    disk = loaded.units(f"{ours} later")["disk"]
    assert (disk["enabled"], disk["options"]) == (True, {"elevator": "none"})


OWN = """
[cpu]
governor=powersave
no_turbo=1
boost=0
[acpi]
platform_profile=low-power
[disk]
readahead=512
"""


@pytest.mark.parametrize("power", ["keep", "balanced"])
def test_only_the_stock_parents_power_is_left_out(host: Loaded, power: str) -> None:
    """Another profile's holds, before ours or after it, also where both are included."""
    host.settings.write_text(f"power={power}\nread_ahead=keep\n")
    host.add("own", OWN)
    host.add("first", "[main]\ninclude=virtual-host-plus,own\n")
    host.add("last", "[main]\ninclude=own,virtual-host-plus\n")
    host.add("mine", f"[main]\ninclude=virtual-host-plus\n{OWN}")
    for names in ("own virtual-host-plus", "virtual-host-plus own", "first", "last", "mine"):
        units = host.units(names)
        ours_wins = power == "balanced" and names in ("own virtual-host-plus", "last")
        governor = "schedutil|ondemand|powersave" if ours_wins else "powersave"
        options = units["cpu"]["options"]
        assert (options["governor"], options["no_turbo"]) == (governor, "1"), names
        assert options["boost"] == "0"
        assert not {"min_perf_pct", "force_latency"} & options.keys()
        assert (power == "balanced") == ("energy_perf_bias" in options)
        assert units["acpi"]["options"] == {"platform_profile": "low-power"}
        assert units["disk"]["options"] == {"readahead": "512"}
        assert all(units[name]["enabled"] for name in ("cpu", "acpi", "disk"))
        assert units["sysctl"]["options"]["vm.swappiness"] == "10"


def test_a_profile_that_includes_the_same_stock_parent_keeps_its_power(host: Loaded) -> None:
    """TuneD loads a file once, so throughput-performance is that profile's as well as ours."""
    host.settings.write_text("power=keep\nread_ahead=keep\n")
    host.add("throughput", "[main]\ninclude=throughput-performance\n")
    host.add("both", "[main]\ninclude=virtual-host-plus,throughput\n")
    for names in ("throughput virtual-host-plus", "virtual-host-plus throughput", "both"):
        units = host.units(names)
        options = units["cpu"]["options"]
        assert options["governor"] == "performance"
        assert "force_latency" not in options, "which only virtual-host sets"
        assert units["disk"]["options"] == {"readahead": ">4096"}


def test_write_back_in_bytes_replaces_the_percentage(loaded: Loaded, ours: str) -> None:
    loaded.settings.write_text("dirty_background_bytes=67108864\ndirty_bytes=134217728\n")
    units = loaded.units(ours)
    options = {**units["sysctl"]["options"], **units["vm"]["options"]}
    assert {name: text for name, text in options.items() if "dirty" in name} == {
        "vm.dirty_background_bytes": "67108864",
        "vm.dirty_bytes": "134217728",
    }
    loaded.settings.write_text("dirty_background_bytes=67108864\n")
    units = loaded.units(ours)
    options = {**units["sysctl"]["options"], **units["vm"]["options"]}
    assert options["vm.dirty_background_bytes"] == "67108864"
    assert not {"vm.dirty_background_ratio", "dirty_background_ratio"} & options.keys()
    assert {"vm.dirty_ratio", "dirty_ratio", "dirty_bytes"} & options.keys()


def test_an_option_for_a_group_of_guests_reaches_its_section(host: Loaded) -> None:
    """Whatever its name has in it: patterns, dots, and several names."""
    host.settings.write_text("")
    options = {"policy.db* !db-test": "dedicated", "smt.web.example.com": "isolate"}
    text = "\n".join(f"{name}={value}" for name, value in options.items())
    host.add("mine", f"[main]\ninclude=virtual-host-plus\n[vm_pinning]\n{text}\n")
    found = host.units("mine")["vm_pinning"]["options"]
    assert {name: found[name] for name in options} == options


SET_BY_US = {
    "sysctl": {
        *("vm.swappiness", "vm.dirty_ratio", "vm.dirty_background_ratio"),
        "net.ipv4.conf.all.arp_filter",
    },
    "vm": {"dirty_ratio", "dirty_bytes", "dirty_background_ratio", "dirty_background_bytes"},
    "cpu": {"boost"},
}
"""Options of TuneD's own plugins that our profiles set, or drop in favour of those."""

OTHERS = ("kernel_settings", "pages", "devices", "cpu-partitioning", "realtime-virtual-host")


def add_others(loaded: Loaded) -> None:
    """The stock ones with the variables that they cannot do without."""
    loaded.borrow("cpu-partitioning", "isolated_cores=1\n")
    loaded.borrow("realtime", "isolated_cores=1\n")
    loaded.borrow("realtime-virtual-host", "isolated_cores=1\n")


def comparable(units: dict[str, Any], ours: bool) -> dict[str, Any]:
    """Sections of TuneD's own plugins that set anything, without what a call makes anew, nor what
    is ours to set."""
    found = {}
    for name, unit in units.items():
        if unit["type"] not in tuners():
            options = dict(unit["options"])
            options.pop("initrd_add_dir", None)  # mktemp
            for option in SET_BY_US.get(name, set()) if ours else ():
                options.pop(option, None)
            if options:
                found[name] = {**unit, "options": options}
    return found


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("order", ["{ours} {other}", "{other} {ours}"])
def test_another_profiles_sections_are_as_beside_the_stock_profile(
    loaded: Loaded, ours: str, other: str, order: str
) -> None:
    """All of them and all options of theirs; with observe=1 those that are ours to set as well."""
    add_others(loaded)
    stock = ours.removesuffix("-plus")
    for text, own in (("", True), ("observe=1\n", False)):
        loaded.settings.write_text(text)
        expected = comparable(loaded.units(order.format(ours=stock, other=other)), own)
        found = comparable(loaded.units(order.format(ours=ours, other=other)), own)
        assert found == expected


@pytest.mark.parametrize("other", OTHERS)
def test_what_comes_after_ours_wins(loaded: Loaded, ours: str, other: str) -> None:
    add_others(loaded)
    alone = comparable(loaded.units(other), False)
    loaded.settings.write_text("swappiness=7\n")
    beside = comparable(loaded.units(f"{ours} {other}"), False)
    for name, unit in alone.items():
        assert unit["options"].items() <= beside[name]["options"].items()


@pytest.mark.parametrize("other", OTHERS[3:])
def test_a_child_that_includes_both(loaded: Loaded, ours: str, other: str) -> None:
    """In either order, and our settings file is read whatever files theirs are."""
    add_others(loaded)
    loaded.settings.write_text("swappiness=7\n")
    loaded.add("first", f"[main]\ninclude={ours},{other}\n")
    loaded.add("last", f"[main]\ninclude={other},{ours}\n")
    alone = comparable(loaded.units(other), False)
    for name in ("first", "last"):
        both = loaded.units(name)
        assert both["sysctl"]["options"]["vm.swappiness"] == "7" or name == "first"
        arguments = loaded.bootloader(name)
        assert arguments is not None
        assert arguments == loaded.bootloader(other)
        for section in ("bootloader", "sysfs", "scheduler"):
            assert comparable(both, False)[section] == alone[section]


def test_both_of_our_profiles(version: str, tmp_path: Path, merger: Callable[..., Merger]) -> None:
    """Their parts share no variable that means another setting in the other."""
    both = Loaded(version, tmp_path, "virtual-host-plus", merger(str(REPO)))
    for name in ("virtual-guest-plus", "virt-plus-guest"):
        text = (REPO / "profiles" / name / "tuned.conf").read_text()
        both.add(name, re.sub(r"/etc/tuned/virtual\S+-variables.conf", str(both.settings), text))
    both.settings.write_text("")
    for names, swappiness in (("host guest", "30"), ("guest host", "10")):
        units = both.units(" ".join(f"virtual-{name}-plus" for name in names.split()))
        options = units["sysctl"]["options"]
        assert options["vm.swappiness"] == swappiness
        assert options["vm.dirty_ratio"] == "30"
        assert options["vm.dirty_background_ratio"] == "5"
