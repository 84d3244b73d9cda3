# SPDX-License-Identifier: GPL-2.0-or-later
"""Values that TuneD's own plugins set, and lines of verify for those that TuneD has none for."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tuned_virt.core.engine import Finding, Result
from tuned_virt.core.journal import Journal
from tuned_virt.tuned_api import stock_values
from tuned_virt.tuned_api.stock_journal import StockJournal
from tuned_virt.tuned_api.stock_values import StockValue

DISKS = {"sda": "4096", "sdb": "8192"}


class FakePlugin:
    """TuneD's base class as far as it is asked; get and set as 2.25 has them."""

    name = "disk"

    def __init__(self, **values: str | None) -> None:
        self.now: dict[str, str | None] = dict(values)
        self.kept: dict[str, str] = {}
        self._commands: dict[str, dict[str, Any]] = {
            "readahead": {
                "name": "readahead", "per_device": True, "get": self.get, "set": self.set,
                "custom": None,
            },
            "features": {"name": "features", "per_device": True, "custom": self.set},
        }  # fmt: skip
        self._variables = SimpleNamespace(
            expand=lambda text: text if text is None else text.replace("${four}", "4096")
        )
        self._storage = SimpleNamespace(get=self.kept.get)
        self._cmd = SimpleNamespace(get_bool=lambda text: {"yes": "1"}.get(text, text))

    def _get_config_options(self) -> dict[str, str | None]:
        return {"readahead": None, "dynamic": "1"}

    def get(self, device: str, instance: Any, ignore_missing: bool = False) -> str | None:
        return self.now.get(device)

    def set(self, value: str, device: str, instance: Any, sim: bool, remove: bool) -> str | None:
        assert sim
        assert not remove
        return value if device in self.now else None

    def _get_current_value(
        self, instance: Any, command: Any, device: str | None = None, ignore_missing: bool = False
    ) -> Any:
        return command["get"](device, instance, ignore_missing=ignore_missing)

    def _process_assignment_modifiers(self, new: str, current: str | None) -> str | None:
        if current is None or new[:1] not in "<>":
            return new.lstrip("<>")
        more = int(new[1:]) - int(current)
        return new[1:] if (more > 0 if new[0] == ">" else more < 0) else None

    def _storage_get(self, instance: Any, command: Any, device: str | None = None) -> str | None:
        return self.kept.get(f"{command['name']}/{device}")

    def _storage_key(self, command_name: str) -> str:
        return command_name

    def _read_sysctl(self, option: str) -> str | None:
        return self.now.get(option)

    _read_sysfs = _read_sysctl


class OldPlugin(FakePlugin):
    """Get and set as TuneD 2.20 has them."""

    def get(self, device: str, ignore_missing: bool = False) -> str | None:  # type: ignore[override]
        return self.now.get(device)

    def set(self, value: str, device: str, sim: bool) -> str | None:  # type: ignore[override]
        assert sim
        return value if device in self.now else None

    def _get_current_value(  # type: ignore[override]
        self, command: Any, device: str | None = None, ignore_missing: bool = False
    ) -> Any:
        return command["get"](device, ignore_missing=ignore_missing)


def section(plugin: FakePlugin, kind: str = "disk", /, **options: str | None) -> Any:
    plugin.name = kind
    devices = set(plugin.now) if kind == "disk" else set()
    return SimpleNamespace(
        name=kind, plugin=plugin, options=options, processed_devices=devices, _first_instance=True
    )


def lines(*instances: Any) -> list[str]:
    """What verify adds."""
    found = stock_values.values(list(instances), all_of_them=False)
    return [str(one.finding()) for one in found if one.ours]


@pytest.fixture(params=[FakePlugin, OldPlugin])
def plugin(request: pytest.FixtureRequest) -> Callable[..., FakePlugin]:
    made: Callable[..., FakePlugin] = request.param
    return made


def test_what_a_modifier_already_permits_has_a_line(plugin: Callable[..., FakePlugin]) -> None:
    assert lines(section(plugin(**DISKS), readahead=">${four}")) == [
        "verify: passed: device sda: 'readahead' = '4096' (at least 4096)",
        "verify: passed: device sdb: 'readahead' = '8192' (at least 4096)",
    ]
    assert lines(section(plugin(**DISKS), readahead="<4096")) == [
        "verify: passed: device sda: 'readahead' = '4096' (at most 4096)"
    ], "TuneD has a line for the other: it is too high"


def test_tuned_has_a_line_itself_for_a_plain_value(plugin: Callable[..., FakePlugin]) -> None:
    assert lines(section(plugin(**DISKS), readahead="4096")) == []
    assert lines(section(plugin(**DISKS), readahead=">9000")) == []


def test_what_the_machine_does_not_have_is_told(plugin: Callable[..., FakePlugin]) -> None:
    instance = section(plugin(), readahead="4096")
    assert lines(instance) == [
        "verify: skipped, missing: 'readahead': this machine does not have it"
    ]
    instance.processed_devices = {"zram0"}
    assert lines(instance) == [
        "verify: skipped, missing: device zram0: 'readahead': this machine does not have it"
    ]


def test_what_tuned_never_compares_is_a_note() -> None:
    instance = section(FakePlugin(), "net", features="gro off", dynamic="1", readahead=None)
    assert lines(instance) == [
        "verify: note: 'features': gro off: TuneD does not verify this option"
    ]
    assert lines(section(FakePlugin(), "scheduler", isolated_cores="1")) == []
    assert lines(section(FakePlugin(), "modules", kvm="+r")) == []


def test_sysctl() -> None:
    instance = section(FakePlugin(a="4096", b="1"), "sysctl", a=">2048", b="2")
    instance._sysctl_original = {"a": "128"}
    assert lines(instance) == ["verify: passed: 'a' = '4096' (at least 2048)"]
    [first, second] = stock_values.values([instance])
    assert (first.original, first.found, first.name) == ("128", "4096", "[sysctl] a")
    assert (second.original, second.found, second.ours) == (None, "1", False)


def test_sysfs(tmp_path: Path) -> None:
    file = tmp_path / "queue/value"
    file.parent.mkdir()
    file.touch()
    instance = section(FakePlugin(**{str(file): "1"}), "sysfs", **{f"{file.parent}/*": "2"})
    [one] = stock_values.values([instance])
    assert (one.option, one.found, one.wanted, one.ours) == (str(file), "1", "2", False)
    assert lines(section(FakePlugin(), "sysfs", **{"/sys/nothing/*": "2"})) == [
        "verify: skipped, missing: '/sys/nothing/*': this machine does not have it"
    ]


@pytest.mark.parametrize(
    ("option", "text", "now", "said"),
    [
        ("dirty_ratio", "40", "40", "verify: passed: 'dirty_ratio' = '40'"),
        ("dirty_ratio", "40", "20", "verify: failed: 'dirty_ratio' = '20', expected '40'"),
        ("dirty_bytes", "40%", "40", "verify: passed: 'dirty_ratio' = '40'"),
        ("dirty_background_bytes", "4096", "0",
         "verify: failed: 'dirty_background_bytes' = '0', expected '4096'"),
    ],
)  # fmt: skip
def test_dirty_pages(
    option: str, text: str, now: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stock_values, "DIRTY", tmp_path)
    name = option.replace("bytes", "ratio") if "%" in text else option
    (tmp_path / name).write_text(f"{now}\n")
    instance = section(FakePlugin(), "vm", **{option: text})
    assert lines(instance) == [said]
    instance.plugin.kept[name.replace("ratio", "bytes")] = "4096"
    [one] = stock_values.values([instance])
    assert one.original == ("0" if "ratio" in name else "4096"), "its counterpart was in use"


@pytest.mark.parametrize(
    ("held", "wanted", "said"),
    [
        (70, 70, "verify: passed: 'force_latency' = '70' (a|70: at most 70 us)"),
        (2, 70, "verify: passed: 'force_latency' = '2' (a|70: at most 70 us)"),
        (2_000_000_000, 70, "verify: failed: 'force_latency' = '2000000000', expected '70'"),
        (None, 70, "verify: skipped, missing: 'force_latency': this machine does not have it"),
        (70, None, "verify: skipped, missing: 'force_latency': this machine does not have it"),
    ],
)
def test_c_states(
    held: int | None,
    wanted: int | None,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stock_values, "DMA_LATENCY", tmp_path / "latency")
    if held is not None:
        (tmp_path / "latency").write_bytes(struct.pack("i", held))
    plugin: Any = FakePlugin()
    plugin._latency, plugin._has_pm_qos = wanted, True
    assert lines(section(plugin, "cpu", force_latency="a|70")) == [said]


@pytest.mark.parametrize(
    ("plugin", "option", "file"),
    [("cpu", "force_latency", "DMA_LATENCY"), ("vm", "dirty_ratio", "DIRTY")],
)
def test_what_cannot_be_read_is_not_said_to_be_missing(
    plugin: str, option: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder in the file's place: it is there, and its text is not to be had."""
    (tmp_path / "dirty_ratio").mkdir()
    monkeypatch.setattr(stock_values, file, tmp_path)
    fake: Any = FakePlugin()
    fake._latency, fake._has_pm_qos = 70, True
    [line] = lines(section(fake, plugin, **{option: "70"}))
    assert line.startswith(f"verify: failed: '{option}': cannot be read: [Errno 21]")


def test_intel_pstate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock_values, "INTEL_PSTATE", tmp_path)
    plugin: Any = FakePlugin()
    plugin._has_intel_pstate, plugin._no_turbo_save = True, "0"
    instance = section(plugin, "cpu", no_turbo="yes", min_perf_pct="100")
    (tmp_path / "no_turbo").write_text("1\n")
    (tmp_path / "min_perf_pct").write_text("50\n")
    assert lines(instance) == [
        "verify: passed: 'no_turbo' = '1'",
        "verify: failed: 'min_perf_pct' = '50', expected '100'",
    ]
    plugin._has_intel_pstate = False
    assert all("skipped, missing" in line for line in lines(instance))


# --- the running daemon ---------------------------------------------------------------------------


class Manager:
    """TuneD's manager of instances, as verify is called from it."""

    def __init__(self, *instances: Any) -> None:
        self.instances = list(instances)

    def _unit_matches_cpuinfo(self, unit: Any) -> bool:
        return bool(unit.matches)

    _unit_matches_uname = _unit_matches_cpuinfo


def ours(name: str) -> Any:
    return SimpleNamespace(name=name, plugin=SimpleNamespace(tuner=object()))


def called_by(objects: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock_values, "caller", objects.get)


def test_the_caller_is_found_by_its_module() -> None:
    class Verifier:
        def verify(self) -> Any:
            return stock_values.caller(__name__)

    one = Verifier()
    assert one.verify() is one
    assert stock_values.caller("no.such.module") is None


def test_one_section_of_ours_speaks_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = ours("crash_guard"), ours("ksm")
    stock = section(FakePlugin(), readahead="1")
    called_by({"tuned.units.manager": Manager(stock, first, second)}, monkeypatch)
    assert [str(one) for one in stock_values.findings(first)] == lines(stock)
    assert stock_values.findings(second) == []
    called_by({}, monkeypatch)
    assert stock_values.findings(first) == []


def unit(kind: str, matches: bool = True, enabled: bool = True, **options: str) -> Any:
    return SimpleNamespace(type=kind, matches=matches, enabled=enabled, options=options)


def test_sections_that_are_not_loaded_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    units = {
        "disk": unit("disk"),
        "acpi": unit("acpi", platform_profile="performance"),
        "pins": unit("vm_pinning"),
        "system": unit("virt_system"),
        "arm": unit("vm", matches=False, transparent_hugepages="never"),
        "off": unit("vm", enabled=False, transparent_hugepages="never"),
    }
    daemon = SimpleNamespace(profile=SimpleNamespace(units=units))
    found = list(stock_values.unloaded(Manager(section(FakePlugin())), daemon))
    assert found == [
        Finding(
            Result.MISSING,
            "'platform_profile' of [acpi]: TuneD's plugin acpi does not support this machine",
        ),
        *(
            Finding(
                Result.FAILED,
                f"'{kind}': TuneD could not load it, so [{name}] is not applied; see its log",
            )
            for name, kind in (("pins", "vm_pinning"), ("system", "virt_system"))
        ),
    ]


# --- the journal ----------------------------------------------------------------------------------


def test_what_tuned_changed_and_restored_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "journal")
    made = StockJournal(journal)
    plugin = FakePlugin(sda="4096", sdb="4096", sdc="4096")
    plugin.kept = {"readahead/sda": "128", "readahead/sdb": "4096"}
    made._instances = [section(plugin, readahead=">4096")]
    made.applied()
    plugin.now["sda"] = "128"
    made.unapplied()
    made.unapplied()
    assert [
        (one.plugin, one.setting, one.before, one.after, one.why) for one in journal.entries()
    ] == [
        ("tuned", "[disk] readahead of sda", "128", "4096", "set by TuneD's [disk]"),
        ("tuned", "[disk] readahead of sda", "4096", "128", "restored by TuneD"),
    ]


def test_it_waits_until_tuned_has_applied_its_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, applied = ours("crash_guard"), threading.Event()
    plugin = FakePlugin(sda="4096")
    plugin.kept = {"readahead/sda": "128"}
    manager = Manager(first, section(plugin, readahead="4096"))
    daemon = SimpleNamespace(_profile_applied=applied)
    called_by({"tuned.units.manager": manager, "tuned.daemon.daemon": daemon}, monkeypatch)
    journal = Journal(tmp_path / "journal")
    made = StockJournal(journal)
    made.applying(first)
    assert list(journal.entries()) == []
    applied.set()
    for thread in threading.enumerate():
        if thread.name == "virt-later":
            thread.join(10)
    assert len(list(journal.entries())) == 1


def test_a_value_says_what_it_is() -> None:
    assert StockValue("vm", "dirty_ratio").name == "[vm] dirty_ratio"
    assert StockValue("disk", "readahead", "sda").name == "[disk] readahead of sda"
