# SPDX-License-Identifier: GPL-2.0-or-later
"""A plugin written once against TuneD 2.25 does the same under every generation's real daemon."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sandbox import Sandbox, wait_for

PLUGIN = Path(__file__).parent.parent / "data/plugins/plugin_conformance.py"

KERNEL = """
mkdir -p /run/conformance/devices
cd /run/conformance
printf 10 >level; printf 0 >many; printf old >custom
printf 1 >devices/a; printf 2 >devices/b
printf '' >tag-a; printf '' >tag-b
"""
BEFORE = {"level": "10", "many": "0", "custom": "old", "devices/a": "1", "devices/b": "2"}


def profile(**options: str) -> str:
    lines = "\n".join(f"{name}={value}" for name, value in options.items())
    return f"[main]\nsummary=conformance\n[variables]\nheavy=50\n[conformance]\n{lines}\n"


PROFILES = {
    "full": profile(level="20", custom="new", weight="${heavy}", tag="x"),
    "level": profile(level="30"),
    "same": profile(level="20").replace("[conformance]", "[renamed]\ntype=conformance"),
    "raise": profile(level=">20", weight=">2"),
    "only-a": profile(weight="7", devices="a"),
    "slow": profile(level="20", many="9", weight="50"),
    "explode": profile(level="explode", custom="new"),
    "absent": profile(absent="1"),
}


@pytest.fixture
def t(tuned: Callable[..., Sandbox], version: str) -> Sandbox:
    return tuned(version, profiles=PROFILES, plugins=[PLUGIN], setup=KERNEL)


def values(t: Sandbox) -> dict[str, str]:
    return {name: t.read(f"/run/conformance/{name}") for name in BEFORE}


FULL = {"level": "20", "many": "0", "custom": "new", "devices/a": "50", "devices/b": "50"}


def test_apply_verify_drift_switch_off(t: Sandbox) -> None:
    t.switch("full")
    assert values(t) == FULL
    assert t.verify()
    assert "device a: 'weight' = '50'" in t.verify_lines
    t.write("/run/conformance/devices/b", "3")
    t.write("/run/conformance/level", "4")
    assert not t.verify()
    assert "verify: failed: device b: 'weight' = '3', expected '50'" in t.verify_lines
    assert "verify: failed: 'level' = '4', expected '20'" in t.verify_lines
    t.switch("level")
    assert values(t) == {**BEFORE, "level": "30"}
    assert t.verify()
    t.off()
    assert values(t) == BEFORE


def test_verify_writes_nothing(t: Sandbox) -> None:
    t.switch("full")
    before = t.read("/run/conformance/writes")
    assert t.verify()
    assert t.read("/run/conformance/writes") == before


def test_sighup_keeps_and_sigterm_restores(t: Sandbox) -> None:
    t.switch("full")
    t.sighup()
    assert values(t) == FULL
    assert t.verify()
    t.terminate()
    assert values(t) == BEFORE


def test_originals_survive_kill9(t: Sandbox) -> None:
    t.switch("full")
    t.kill9()
    t.start()
    assert values(t) == FULL
    assert t.verify()
    t.off()
    assert values(t) == BEFORE


def test_switch_after_kill9_restores_what_the_new_profile_leaves(t: Sandbox) -> None:
    t.switch("full")
    t.kill9()
    t.write("/etc/tuned/active_profile", "level\n")
    t.start()
    assert {name: values(t)[name] for name in ("level", "devices/a", "devices/b")} == {
        "level": "30",
        "devices/a": "1",
        "devices/b": "2",
    }
    t.off()
    assert values(t)["level"] == "10"


def test_renamed_instance_after_kill9(t: Sandbox) -> None:
    t.switch("full")
    t.kill9()
    t.write("/etc/tuned/active_profile", "same\n")
    t.start()
    t.off()
    assert values(t)["level"] == "10"


def test_modifiers_are_relative_to_the_true_original(t: Sandbox) -> None:
    t.switch("raise")
    raised = {**BEFORE, "level": "20", "devices/a": "2"}
    assert values(t) == raised
    t.kill9()
    t.start()
    assert values(t) == raised
    assert t.verify()
    t.off()
    assert values(t) == BEFORE


def test_kill9_in_the_middle_of_applying(t: Sandbox) -> None:
    t.call("switch_profile", "slow")
    t.call("start")
    wait_for("apply under way", lambda: values(t)["many"] != "0")
    t.kill9()
    assert values(t)["many"] not in ("0", "9")
    t.start(wait=False)
    wait_for("applied", lambda: values(t)["many"] == "9")
    t.wait_until_up()
    wait_for("all applied", t.verify)
    t.off()
    assert values(t) == BEFORE


def test_an_exception_is_said_and_fails_verify(t: Sandbox) -> None:
    t.switch("explode")
    assert "a setter that raises" in t.log()
    assert values(t)["custom"] == "new", "the rest of the instance is applied"
    assert not t.verify()
    t.off()
    assert values(t) == BEFORE


def test_missing_follows_ignore_missing(t: Sandbox) -> None:
    t.switch("absent")
    assert not t.verify()
    assert t.verify(ignore_missing=True)
    assert "verify: skipped, missing: 'absent'" in t.verify_lines


def test_devices_select(t: Sandbox) -> None:
    t.switch("only-a")
    assert values(t) == {**BEFORE, "devices/a": "7"}
    t.off()
    assert values(t) == BEFORE


def test_stop_is_quick(t: Sandbox) -> None:
    t.switch("full")
    started = time.monotonic()
    t.terminate()
    assert time.monotonic() - started < 10, "no thread of ours keeps the process alive"
