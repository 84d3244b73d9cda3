# SPDX-License-Identifier: GPL-2.0-or-later
"""Sections of a profile and its settings file, in the hands of TuneD's own classes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit.tuned_api import made_up
from tuned_virt import registry
from tuned_virt.core import active_profile, section_settings
from tuned_virt.plugins.blk_elevator_virt.policy import DiskPolicy
from tuned_virt.plugins.ksm.policy import KsmMode, KsmPolicy
from tuned_virt.tuned_api import planned_plugin
from tuned_virt.tuned_api.planned_plugin import PlannedPlugin

SHIPPED = Path(__file__).parents[3] / "profiles/virtual-host-plus/defaults.conf"


class RecordingRunner:
    """What a plugin has planned, in place of the process's plan runner."""

    def __init__(self) -> None:
        self.applied: list[tuple[Any, bool]] = []
        self.planned: dict[str, str] = {}

    def apply(self, policy: Any, observe: bool) -> None:
        self.applied.append((policy, observe))

    def verify(self, ignore_missing: bool) -> list[Any]:
        return []


Applied = Callable[..., tuple[Any, bool]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "v.conf"
    found.write_text("")
    return found


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> RecordingRunner:
    made = RecordingRunner()
    monkeypatch.setattr(planned_plugin, "plan_runner", lambda tuner: made)
    return made


def plugin(name: str, **sections: dict[str, str]) -> Any:
    """A plugin with these sections applied."""
    made, instances = made_up.plugin(PlannedPlugin, registry.tuner(name), name, sections)
    for instance in instances:
        made._instance_apply_static(instance)
    return made


def ours(file: Path, **options: str) -> dict[str, str]:
    return {"settings": str(file), "defaults": str(SHIPPED), **options}


def failed(made: Any, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What verify logs of an applied plugin as failed."""
    caplog.clear()
    caplog.set_level(logging.INFO, "tuned")
    instance = next(iter(made._instances.values()))
    fine = made._instance_verify_static(instance, False, [])
    lines = [one.message for one in caplog.records if one.levelno == logging.ERROR]
    assert fine is not bool(lines)
    return lines


def mode(runner: RecordingRunner) -> KsmMode:
    policy, _ = runner.applied[-1]
    assert isinstance(policy, KsmPolicy)
    return policy.mode


def test_the_file_comes_before_the_profiles_default(runner: RecordingRunner, file: Path) -> None:
    plugin("ksm", ksm=ours(file))
    assert mode(runner) is KsmMode.AUTO
    file.write_text("ksm_mode=off\nobserve=1\n")
    plugin("ksm", ksm=ours(file))
    assert (mode(runner), runner.applied[-1][1]) == (KsmMode.OFF, True)


@pytest.mark.parametrize("word", ["static", "kernel"])
def test_a_section_comes_before_the_file(
    runner: RecordingRunner, file: Path, caplog: pytest.LogCaptureFixture, word: str
) -> None:
    """Also with what the plugin does by default."""
    file.write_text("ksm_mode=off\n")
    made = plugin("ksm", ksm=ours(file, mode=word))
    assert mode(runner) is KsmMode(word)
    assert failed(made, caplog) == []


def test_a_second_section_of_the_plugin_adds_to_it(runner: RecordingRunner, file: Path) -> None:
    file.write_text("ksm_mode=off\n")
    plugin("ksm", ksm=ours(file), child={"mode": "unmerge"})
    assert mode(runner) is KsmMode.UNMERGE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ksm_mod=off", "line 1: 'ksm_mod=off' is not a setting: did you mean ksm_mode?"),
        ("ksm_mode=of", "line 1: 'ksm_mode=of' is not valid: one of off,"),
        ("ksm_mode=off\nksm_mode=off", "line 2: 'ksm_mode=off' is a second ksm_mode, after line 1"),
        ("ksm_run=1", "line 1: 'ksm_run=1' is not valid: leave it out, ksm_mode=auto controls it"),
        ("observe=maybe", "line 1: 'observe=maybe' is not valid: 1 or 0"),
        ("observ=1", "line 1: 'observ=1' is not a setting: did you mean observe?"),
        ("ksm.mode=off", "line 1: 'ksm.mode=off' is not a setting: did you mean ksm_mode?"),
        ("colour=red", "line 1: 'colour=red' is not a setting, and no profile that includes"),
        ("\ufeff", "line 1: it begins with a byte order mark (BOM); save it without one"),
    ],
)
def test_an_error_in_the_file_fails_verify_and_nothing_is_applied(
    runner: RecordingRunner, file: Path, caplog: pytest.LogCaptureFixture, text: str, said: str
) -> None:
    file.write_text(f"{text}\n")
    made = plugin("ksm", ksm=ours(file))
    assert runner.applied == [(made.tuner.parse({}), False)]
    [line] = failed(made, caplog)
    assert f"'ksm': {file}: {said}" in line


def test_a_file_that_is_gone_is_not_taken_for_an_empty_one(
    runner: RecordingRunner, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.unlink()
    made = plugin("ksm", ksm=ours(file))
    assert mode(runner) is KsmMode.STATIC
    [line] = failed(made, caplog)
    assert f"{file}: there is no such file" in line


def test_tuneds_variables_and_functions_are_replaced(runner: RecordingRunner, file: Path) -> None:
    file.write_text("ksm_mode=${f:strip: off }\n")
    plugin("ksm", ksm=ours(file))
    assert mode(runner) is KsmMode.OFF


def test_disks_that_the_file_selects_and_those_of_a_childs_section(
    runner: RecordingRunner, file: Path
) -> None:
    file.write_text("disk_devices=!sdb\ndisk_host_other=bfq\n")
    child = {"devices": "sd*", "host_nvme": "none"}
    plugin("blk_elevator_virt", child=child, blk_elevator_virt=ours(file))
    policy, _ = runner.applied[-1]
    assert isinstance(policy, DiskPolicy)
    assert [rule.devices for rule in policy.rules] == ["sd*", "!sdb"]
    assert [rule.words["host_other"] for rule in policy.rules] == ["bfq", "bfq"]
    assert [rule.words["host_nvme"] for rule in policy.rules] == ["none", "keep"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("swappiness=abc", "line 1: 'swappiness=abc' is not valid: a whole number from 0 to 200"),
        ("arp_filter=2", "line 1: 'arp_filter=2' is not valid: one of 0, 1"),
        ("swapiness=1", "line 1: 'swapiness=1' is not a setting: did you mean swappiness?"),
    ],
)
def test_what_tuneds_own_sections_use_is_checked_by_crash_guard(
    runner: RecordingRunner, file: Path, caplog: pytest.LogCaptureFixture, text: str, said: str
) -> None:
    file.write_text(f"{text}\n")
    [line] = failed(plugin("crash_guard", crash_guard=ours(file)), caplog)
    assert f"{file}: {said}" in line
    assert failed(plugin("ksm", ksm=ours(file)), caplog) == []


def test_that_nothing_is_set_is_said_once(
    runner: RecordingRunner,
    file: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With observe=1 whatever is watched verifies, which must not look as if it were set."""
    file.write_text("\nobserve=1\n")
    monkeypatch.setattr(planned_plugin, "applied_sections", dict)
    said = []
    for name in ("crash_guard", "ksm"):
        assert failed(plugin(name, **{name: ours(file)}), caplog) == []
        said += [line for line in caplog.messages if "verify only, and change nothing" in line]
    [line] = said
    assert line.startswith(f"verify: note: 'observe': {file}: line 2: the plugins of tuned-virt")


def test_what_won_that_cannot_be_told_fails_verify(
    runner: RecordingRunner,
    file: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether another profile's section won is not known where TuneD's own files cannot be read."""
    monkeypatch.setattr(planned_plugin, "applied_sections", dict)
    made = plugin("crash_guard", crash_guard=ours(file))
    assert failed(made, caplog) == []

    def unreadable(_system: object) -> None:
        raise PermissionError(13, "Permission denied", active_profile.NAMES)

    monkeypatch.setattr(active_profile, "read", unreadable)
    [said] = failed(made, caplog)
    assert f"{file}: what of it holds cannot be told" in said
    assert active_profile.NAMES in said


def test_what_is_asked_again_is_not_parsed_again(
    file: Path, runner: RecordingRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = {"settings": str(file), "defaults": str(SHIPPED)}
    file.write_text("ksm_mode=ksmtuned\n")
    made = plugin("ksm", ksm=dict(defaults))
    first = runner.applied[-1][0]
    with monkeypatch.context() as unread:
        unread.setattr(made.tuner, "parse", None)
        unread.setattr(section_settings, "load", None)
        assert made.asked().policy is first
    file.write_text("ksm_mode=off\n")
    assert made.asked().policy.mode is KsmMode.OFF, "the file has changed"
    file.write_text("ksm_mod=off\n")
    [wrong] = made.asked().errors
    assert "did you mean ksm_mode?" in str(wrong)
    assert list(map(str, made.asked().errors)) == [str(wrong)]
    file.write_text("ksm_mode=off\n")
    assert made.asked().policy.mode is KsmMode.OFF


def test_an_internal_error_of_an_apply_is_said_by_verify(
    runner: RecordingRunner,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(tuner: Any, options: Mapping[str, str]) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(type(registry.tuner("ksm")), "parse", broken)
    made = plugin("ksm", all=ours(file, mode="off"))
    assert failed(made, caplog) == [
        "verify: failed: 'ksm': internal error while it was applied; see the log"
    ]
    assert runner.applied == []
