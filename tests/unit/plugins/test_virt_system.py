# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from tuned_virt.core.options import BadOptions
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins.virt_system import (
    ONLINE,
    ONLINE_FILE,
    Module,
    SystemState,
    SystemTuner,
    decide,
    module,
    needs,
    offline_cpus,
    online_rule,
    parse,
)

VHOST = "module vhost_net"
HOST = parse({"load_modules": "vhost-net"})
GUEST = parse({ONLINE: "auto"})
NEEDS = {"vhost_net": ("vhost", "vhost_iotlb", "tun")}
ABSENT = Module(loaded=False)
LOADED = {
    "vhost_net": Module(True),
    "vhost": Module(True, 1, frozenset({"vhost_net"})),
    "vhost_iotlb": Module(True, 1, frozenset({"vhost"})),
    "tun": Module(True, 1, frozenset({"vhost_net"})),
}
BEFORE = {VHOST: "absent", "module vhost": "absent", "module vhost_iotlb": "absent"}


def test_bad_options() -> None:
    with pytest.raises(BadOptions, match="'-rf' is not valid: names of kernel modules"):
        parse({"load_modules": "vhost_net -rf"})
    with pytest.raises(BadOptions, match="'maybe' is not valid: one of auto, offline, online"):
        parse({ONLINE: "maybe"})


def test_an_absent_module_is_loaded_with_what_it_needs() -> None:
    absent = {**dict.fromkeys(LOADED, ABSENT), "tun": Module(True)}
    plan = decide(HOST, SystemState(absent, NEEDS), {})
    assert [(change.setting, change.after) for change in plan.changes] == [
        *((VHOST, "loaded"), ("module vhost", "loaded"), ("module vhost_iotlb", "loaded")),
    ]
    assert plan.originals == {**BEFORE, "module tun": "loaded"}


def test_what_we_loaded_is_unloaded_and_nothing_else() -> None:
    plan = decide(parse({}), SystemState(LOADED), {**BEFORE, "module tun": "loaded"})
    assert [(change.setting, change.after) for change in plan.changes] == [
        *((VHOST, "absent"), ("module vhost", "absent"), ("module vhost_iotlb", "absent")),
    ]
    assert not plan.pending


def test_a_module_that_was_there_stays() -> None:
    assert not decide(HOST, SystemState(LOADED), {}).changes
    assert not decide(parse({}), SystemState(LOADED), {VHOST: "loaded"}).changes


def test_a_module_in_use_is_pending_and_so_is_what_it_needs() -> None:
    in_use = {**LOADED, "vhost_net": Module(True, 3)}
    plan = decide(parse({}), SystemState(in_use), BEFORE)
    assert not plan.changes
    assert plan.pending == {
        VHOST: "in use by 3",
        "module vhost": "in use by 1",
        "module vhost_iotlb": "in use by 1",
    }


def test_a_module_that_the_kernel_does_not_offer_is_a_note() -> None:
    plan = decide(HOST, SystemState({"vhost_net": ABSENT}), {})
    assert not plan.changes
    assert "is not available in this kernel" in plan.notes[0]


@pytest.mark.parametrize(
    ("state", "word", "note"),
    [
        (SystemState(online="offline", machine="x86_64"), "online", ""),
        (SystemState(online="offline", machine="s390x"), "", "standby memory"),
        (SystemState(online="offline", online_rule="/x.rules"), "", "handled by /x.rules"),
        (SystemState(online="online_movable"), "", "is already brought online_movable"),
        (SystemState(), "", "no memory hotplug"),
    ],
)
def test_hot_plugged_memory(state: SystemState, word: str, note: str) -> None:
    plan = decide(GUEST, state, {})
    assert [change.after for change in plan.changes] == ([word] if word else [])
    assert note in " ".join(plan.notes)


def test_applied_again_auto_still_holds_what_it_set() -> None:
    plan = decide(GUEST, SystemState(online="online"), {ONLINE: "offline"})
    assert not plan.changes
    assert plan.wanted == {ONLINE: "online"}


def test_what_is_asked_for_outright_is_set_whatever_others_do() -> None:
    state = SystemState(online="offline", machine="s390x", online_rule="/x.rules")
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


VM_HOTADD = """# On Hyper-V and Xen we want to add memory and cpus as soon as they appear
ATTR{[dmi/id]sys_vendor}=="Microsoft Corporation", \\
  ATTR{[dmi/id]product_name}=="Virtual Machine", GOTO="vm_hotadd_apply"
ATTR{[dmi/id]sys_vendor}=="Xen", GOTO="vm_hotadd_apply"
GOTO="vm_hotadd_end"
LABEL="vm_hotadd_apply"
SUBSYSTEM=="memory", ACTION=="add", DEVPATH=="/devices/system/memory/memory[0-9]*", \\
  TEST=="state", ATTR{state}!="online", ATTR{state}="online"
LABEL="vm_hotadd_end"
"""
RED_HAT = """SUBSYSTEM!="memory", GOTO="memory_hotplug_end"
ACTION!="add", GOTO="memory_hotplug_end"
PROGRAM="/bin/uname -p", RESULT=="s390*", GOTO="memory_hotplug_end"
ENV{.state}="online"
PROGRAM="/bin/systemd-detect-virt", RESULT=="none", ENV{.state}="online_movable"
ATTR{state}=="offline", ATTR{state}="$env{.state}"
LABEL="memory_hotplug_end"
"""
RUN = """ACTION=="add", SUBSYSTEM=="memory", RUN+="/bin/sh -c 'echo online > /sys$devpath/state'"
"""
HEEDS_KERNEL = RED_HAT.replace(
    'ENV{.state}="online"',
    'ATTRS{auto_online_blocks}=="offline", GOTO="memory_hotplug_end"\nENV{.state}="online"',
)
"""As systemd-rhel 336 asks."""
XEN_KCONFIG = """SUBSYSTEM=="memory", ACTION=="add", \\
  RUN+="/bin/sh -c '[ -f /sys$devpath/state ] && echo online > /sys$devpath/state'"
"""
HOME_ASSISTANT = """\
SUBSYSTEM=="cpu", ACTION=="add", TEST=="online", ATTR{online}=="0", ATTR{online}="1"
SUBSYSTEM=="memory", ACTION=="add", TEST=="state", ATTR{state}=="offline", ATTR{state}="online"
"""
RHEL_7 = """SUBSYSTEM=="memory", ACTION=="add", PROGRAM="/bin/uname -p", RESULT!="s390*", \\
  ATTR{state}=="offline", ATTR{state}="online"
"""
POWER = 'SUBSYSTEM=="memory", ACTION=="add", ATTR{power/state}="on"\n'
CUDA = VM_HOTADD.replace('ATTR{state}="online"', "").replace('SUBSYSTEM=="memory"', "#")
"""Ubuntu's rule in /etc with the line of memory taken out, as NVIDIA's guide says for POWER9."""
ARCH = 'SUBSYSTEM=="memory", CONST{arch}=="s390*|ppc64*", ATTR{state}="online"\n'

FEDORA = """SUBSYSTEM!="memory", GOTO="memory_hotplug_end"
ACTION!="add", GOTO="memory_hotplug_end"
CONST{arch}=="s390*", GOTO="memory_hotplug_end"
ENV{.state}="online"
CONST{virt}=="none", ENV{.state}="online_movable"
ATTR{state}=="offline", ATTR{state}="$env{.state}"
LABEL="memory_hotplug_end"
"""
"""As the NVIDIA guide switches it off, it passes over all of it."""
OTHERS_ONLY = """{}, GOTO="end"
SUBSYSTEM=="memory", ACTION=="add", ATTR{{state}}=="offline", ATTR{{state}}="online"
LABEL="end"
"""
"""A jump on what is not known: what it passes over may not apply."""
DETECTED = 'PROGRAM="/usr/bin/systemd-detect-virt"'


@pytest.mark.parametrize(
    ("text", "vendor", "machine", "found"),
    [
        (VM_HOTADD, "QEMU", "x86_64", False),
        (VM_HOTADD, "Microsoft Corporation", "x86_64", True),
        (VM_HOTADD, "Xen", "x86_64", True),
        (RED_HAT, "QEMU", "x86_64", True),
        (RED_HAT, "QEMU", "s390x", False),
        (RUN, "QEMU", "x86_64", True),
        (RUN.replace("add", "remove"), "QEMU", "x86_64", False),
        (HEEDS_KERNEL, "QEMU", "x86_64", False),
        (XEN_KCONFIG, "QEMU", "x86_64", True),
        (HOME_ASSISTANT, "QEMU", "x86_64", True),
        (RHEL_7, "QEMU", "x86_64", True),
        (RHEL_7, "QEMU", "s390x", False),
        (POWER, "QEMU", "x86_64", False),
        (CUDA, "Microsoft Corporation", "x86_64", False),
        (ARCH, "QEMU", "x86_64", False),
        (ARCH, "QEMU", "s390x", True),
        ('SUBSYSTEM=="cpu", ACTION=="add", ATTR{online}=="0", ATTR{online}="1"', "", "", False),
        ('KERNEL!="memory*", GOTO="x"\nATTR{state}="online"', "", "", True),
        (FEDORA, "QEMU", "x86_64", True),
        (FEDORA.replace('SUBSYSTEM!="memory"', 'SUBSYSTEM=="*"'), "QEMU", "x86_64", False),
        (OTHERS_ONLY.format('CONST{virt}!="microsoft|xen"'), "QEMU", "x86_64", False),
        (OTHERS_ONLY.format(f'{DETECTED}, RESULT!="microsoft"'), "QEMU", "x86_64", False),
    ],
)
def test_udev_rules_are_read_with_their_conditions(
    text: str, vendor: str, machine: str, found: bool, tmp_path: Path
) -> None:
    for folder, name, content in (
        ("usr/lib/udev/rules.d", "40-x.rules", text),
        ("usr/lib/udev/rules.d", "50-hidden.rules", RUN),
        ("etc/udev/rules.d", "50-hidden.rules", "# switched off"),
        ("sys/class/dmi/id", "sys_vendor", vendor),
        ("sys/class/dmi/id", "product_name", "Virtual Machine"),
    ):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).write_text(content)
    expected = "/usr/lib/udev/rules.d/40-x.rules" if found else ""
    assert online_rule(KernelFS(tmp_path), machine, "offline") == expected


def test_a_rule_that_heeds_the_kernel_is_judged_by_what_the_kernel_did_before_us(
    tmp_path: Path,
) -> None:
    rules = tmp_path / "usr/lib/udev/rules.d/40-x.rules"
    rules.parent.mkdir(parents=True)
    rules.write_text(HEEDS_KERNEL)
    file = tmp_path / ONLINE_FILE.lstrip("/")
    file.parent.mkdir(parents=True)
    policy, tuner = parse({ONLINE: "auto"}), SystemTuner()
    for word, originals in (("offline", {}), ("online", {ONLINE: "offline"})):
        file.write_text(word)
        state = tuner.read(KernelFS(tmp_path), policy, originals)
        if state.machine != "s390x":
            assert decide(policy, state, originals).wanted == {ONLINE: "online"}
    assert online_rule(KernelFS(tmp_path), "x86_64", "online") == f"/{rules.relative_to(tmp_path)}"


CPU_RULE = 'SUBSYSTEM=="cpu", ACTION=="add", TEST=="online", ATTR{online}=="0", ATTR{online}="1"\n'


@pytest.mark.parametrize(
    ("online", "control", "rule", "offline"),
    [
        ("0-1", "notsupported", VM_HOTADD, "2-3"),
        ("0-1", "", "", "2-3"),
        ("0-3", "on", "", ""),
        ("0-1", "forceoff", "", ""),
        ("0-1", "off", "", ""),
        ("0-1", "on", CPU_RULE, ""),
    ],
)
def test_cpus_that_stay_offline_are_named(
    tmp_path: Path, online: str, control: str, rule: str, offline: str
) -> None:
    files = {"present": "0-3", "online": online, "smt/control": control}
    for path, text in {f"sys/devices/system/cpu/{n}": t for n, t in files.items()}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "usr/lib/udev/rules.d").mkdir(parents=True)
    (tmp_path / "usr/lib/udev/rules.d/40-x.rules").write_text(rule)
    assert offline_cpus(KernelFS(tmp_path), "x86_64") == offline
    notes = decide(parse({}), SystemState(offline_cpus=offline), {}).notes
    assert [note[:20] for note in notes] == (["CPUs 2-3 are offline"] if offline else [])


def test_modules_and_what_they_need(tmp_path: Path) -> None:
    folder = tmp_path / "lib/modules/6.1"
    folder.mkdir(parents=True)
    (folder / "modules.dep").write_text(
        "kernel/vhost/vhost_net.ko.xz: kernel/vhost/vhost.ko.xz kernel/net/tun.ko.xz\n"
        "kernel/drivers/net/tap-x.ko:\n"
    )
    names = ["vhost_net", "tap_x", "vhost", "none"]
    assert needs(KernelFS(tmp_path), "6.1", names) == {"vhost_net": ("vhost", "tun"), "tap_x": ()}
    assert needs(KernelFS(tmp_path), "6.2", names) == {}


def test_a_module_as_sysfs_shows_it(tmp_path: Path) -> None:
    folder = tmp_path / "sys/module/vhost"
    (folder / "holders/vhost_net").mkdir(parents=True)
    (folder / "refcnt").write_text("2\n")
    assert module(KernelFS(tmp_path), "vhost") == Module(True, 2, frozenset({"vhost_net"}))
    assert module(KernelFS(tmp_path), "no") == ABSENT
