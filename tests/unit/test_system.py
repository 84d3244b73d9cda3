from __future__ import annotations

from pathlib import Path

import pytest

from tuned_virt.kernelfs import KernelFS
from tuned_virt.options import BadOptions
from tuned_virt.system import ONLINE, SystemState, decide, loadable, online_rule, parse

VHOST = "module vhost_net"
HOST = parse({"load_modules": "vhost-net"})
GUEST = parse({ONLINE: "auto"})


def test_bad_options() -> None:
    with pytest.raises(BadOptions, match="'-rf' is not valid: names of kernel modules"):
        parse({"load_modules": "vhost_net -rf"})
    with pytest.raises(BadOptions, match="'maybe' is not valid: one of auto, offline, online"):
        parse({ONLINE: "maybe"})


def test_an_absent_module_is_loaded_and_unloaded() -> None:
    absent = SystemState({VHOST: "absent"}, available=frozenset({"vhost_net"}))
    plan = decide(HOST, absent, {})
    assert [(c.setting, c.after, c.path) for c in plan.changes] == [
        (VHOST, "loaded", "/sys/module/vhost_net")
    ]
    back = decide(parse({}), SystemState({VHOST: "loaded"}), {VHOST: "absent"})
    assert [(c.setting, c.after) for c in back.changes] == [(VHOST, "absent")]


def test_a_module_that_was_there_stays() -> None:
    assert not decide(HOST, SystemState({VHOST: "loaded"}), {}).changes
    assert not decide(parse({}), SystemState({VHOST: "loaded"}), {VHOST: "loaded"}).changes


def test_a_module_in_use_is_pending() -> None:
    plan = decide(parse({}), SystemState({VHOST: "loaded"}, users={VHOST: 3}), {VHOST: "absent"})
    assert not plan.changes
    assert plan.pending == {VHOST: "in use by 3"}


def test_a_module_that_the_kernel_does_not_offer_is_a_note() -> None:
    plan = decide(HOST, SystemState({VHOST: "absent"}), {})
    assert not plan.changes
    assert "this kernel does not offer it" in plan.notes[0]


@pytest.mark.parametrize(
    ("state", "word", "note"),
    [
        (SystemState({ONLINE: "offline"}, machine="x86_64"), "online", ""),
        (SystemState({ONLINE: "offline"}, machine="s390x"), "", "standby memory"),
        (SystemState({ONLINE: "offline"}, online_rule="/x.rules"), "", "left to /x.rules"),
        (SystemState({ONLINE: "online_movable"}), "", "comes online_movable already"),
        (SystemState({}), "", "no memory hotplug"),
    ],
)
def test_hot_plugged_memory(state: SystemState, word: str, note: str) -> None:
    plan = decide(GUEST, state, {})
    assert [change.after for change in plan.changes] == ([word] if word else [])
    assert note in " ".join(plan.notes)


def test_applied_again_auto_still_holds_what_it_set() -> None:
    plan = decide(GUEST, SystemState({ONLINE: "online"}), {ONLINE: "offline"})
    assert not plan.changes
    assert plan.wanted == {ONLINE: "online"}


def test_what_is_asked_for_outright_is_set_whatever_others_do() -> None:
    state = SystemState({ONLINE: "offline"}, machine="s390x", online_rule="/x.rules")
    plan = decide(parse({ONLINE: "online_movable"}), state, {})
    assert [change.after for change in plan.changes] == ["online_movable"]


RULE = """# Memory hotadd request
SUBSYSTEM!="memory", GOTO="memory_hotplug_end"
ATTR{state}=="offline", ATTR{state}="online"
LABEL="memory_hotplug_end"
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (RULE, True),
        ('SUBSYSTEM=="memory", ACTION=="add", ATTR{state}="online"\n', True),
        ("".join(f"#{line}\n" for line in RULE.splitlines()), False),
        ('SUBSYSTEM=="memory", ATTR{state}=="offline", RUN+="/bin/true"\n', False),
    ],
)
def test_udev_rules_that_bring_memory_online(text: str, found: bool, tmp_path: Path) -> None:
    rules = tmp_path / "usr/lib/udev/rules.d"
    rules.mkdir(parents=True)
    (rules / "40-x.rules").write_text(text)
    expected = "/usr/lib/udev/rules.d/40-x.rules" if found else ""
    assert online_rule(KernelFS(tmp_path)) == expected


def test_loadable_modules(tmp_path: Path) -> None:
    folder = tmp_path / "lib/modules/6.1"
    folder.mkdir(parents=True)
    (folder / "modules.dep").write_text(
        "kernel/drivers/vhost/vhost_net.ko.xz: kernel/drivers/vhost/vhost.ko.xz\n"
        "kernel/drivers/net/tap-x.ko:\n"
    )
    asked = {"vhost_net", "tap_x", "nothing", "vhost"}
    assert loadable(KernelFS(tmp_path), asked, "6.1") == {"vhost_net", "tap_x"}
