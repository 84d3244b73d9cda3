# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt audit against a real libvirtd: found, mended by the printed command, clean."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.libvirtd import ENVIRONMENT, Libvirtd
from tests.sandbox import PYTHON
from tests.unit.audit.scenes import Case, MadeScene
from tuned_virt.audit.check import AuditFinding, check
from tuned_virt.audit.rule import AuditRule, Severity, all_rules
from tuned_virt.audit.scene import AuditedGuest
from tuned_virt.frozen_dataclasses import replace
from tuned_virt.model.guest import read_whole

ROOT = Path(__file__).parents[2]

NOT_LIVE = {
    "cpu-emulated": "this machine has no KVM, so libvirt refuses type kvm",
    "disk-backing-chain": "virsh blockpull needs the running guest and its images",
    "hugepages-missing": "pages are the host's: see test_commands_for_the_host",
    "hugepages-short": "pages are the host's: see test_commands_for_the_host",
    "hugepages-not-mounted": "mounts are the host's: see test_commands_for_the_host",
    "blkio-without-scheduler": "schedulers are the host's: see test_disks.py",
    "pin-missing": "a profile places it: see test_pinning.py",
    "host-nested-off": "a file of modprobe, which is read when the module is loaded next",
}
"""Rules whose command is not run on a defined guest, and why."""


REFUSED = {"device-usb-redirection": "not supported without spice graphics"}
"""What some versions of libvirt refuse to define, and in which words."""

TOO_FEW_CPUS = "exceed the maxcpu"
"""virsh takes only CPUs that this machine has; cases are on hosts of eight and more."""


def with_command() -> dict[str, Case]:
    """Cases of rules about guests that print a command."""
    found: dict[str, Case] = {}
    for rule in all_rules().values():
        if rule.of_guest and rule.mends:
            cases = importlib.import_module(f"tests.unit.audit.test_{rule.topic}").CASES
            found[rule.id] = cases[rule.id]
    return found


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[Libvirtd]:
    with Libvirtd() as opened:
        yield opened


def shell(libvirtd: Libvirtd, command: str) -> str:
    """What a command prints where libvirtd runs. Fails with its error."""
    done = subprocess.run(
        libvirtd.command(["bash", "-c", command]),
        capture_output=True, text=True, env=ENVIRONMENT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def define(libvirtd: Libvirtd, document: str) -> None:
    """Raises libvirtError."""
    with libvirtd.connection() as connection:
        connection.defineXML(document)


def emulated(document: str, name: str) -> str:
    """The document as this machine can define it: under TCG, and with a UUID of its own."""
    own = f"<name>{name}</name><uuid>{uuid.uuid4()}</uuid>"
    named = re.sub("<name>[^<]*</name>", own, document)
    return named.replace("type='kvm'", "type='qemu'", 1).replace("pc-q35-9.2", "q35")


def found(libvirtd: Libvirtd, rule: AuditRule, made: MadeScene, name: str) -> list[AuditFinding]:
    """What the rule finds on a guest as libvirt has it now; the host is the case's."""
    xml = shell(libvirtd, f"virsh dumpxml --inactive {name}")
    kvm = xml.replace("type='qemu'", "type='kvm'", 1)
    others = [one for one in made.guests if one.guest.name != "vm1"]
    guest = AuditedGuest(*read_whole(kvm))
    scene = replace(made, guests=(*others, guest))
    return [one for one in check(scene, [rule]).findings if one.guest is guest]


@pytest.mark.parametrize("name", sorted(with_command().keys() - NOT_LIVE.keys()))
def test_found_mended_by_the_printed_command_and_clean(name: str, libvirtd: Libvirtd) -> None:
    rule, case = all_rules()[name], with_command()[name]
    try:
        define(libvirtd, emulated(case.fails.documents[0], name))
    except libvirt.libvirtError as refused:
        if name in REFUSED:
            assert REFUSED[name] in str(refused)
            return
        assert rule.severity is Severity.ERROR, refused
        assert "machine type" not in str(refused)
        return  # it is found in files alone, before somebody defines it
    try:
        findings = found(libvirtd, rule, case.fails, name)
        assert findings
        for _ in range(4):
            if not findings:
                break
            assert findings[0].command, findings[0].what
            try:
                shell(libvirtd, findings[0].command)
            except AssertionError as refused:
                assert TOO_FEW_CPUS in str(refused)
                return
            findings = found(libvirtd, rule, case.fails, name)
        assert [one.what for one in findings] == []
    finally:
        shell(libvirtd, f"virsh undefine {name}")


def test_every_rule_with_a_command_is_run_or_says_why_not() -> None:
    assert NOT_LIVE.keys() <= with_command().keys()


WRONG = """<domain type='qemu'><name>wrong</name><memory unit='MiB'>32</memory><vcpu>3</vcpu>
<memtune><hard_limit unit='MiB'>16</hard_limit></memtune>
<os><type arch='x86_64' machine='pc'>hvm</type></os>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file' device='disk'><driver name='qemu' type='raw' cache='unsafe'/>
<source file='/tmp/no-such.img'/><target dev='hda' bus='ide'/></disk>
<interface type='user'><mac address='52:54:00:00:00:01'/><model type='rtl8139'/></interface>
<input type='tablet' bus='usb'/><sound model='ich6'/><video><model type='none'/></video>
</devices></domain>"""

FOUND = {
    *("cpu-over-host", "memory-hard-limit-low", "disk-cache-unsafe", "disk-bus", "nic-model"),
    *("nic-user", "device-tablet", "device-sound", "os-unknown", "guest-agent-missing"),
}


def audited(libvirtd: Libvirtd, *words: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        libvirtd.command([PYTHON, "-m", "tuned_virt", "audit", "--json", *words]),
        capture_output=True, text=True, env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, content


def test_the_command_on_this_host(libvirtd: Libvirtd) -> None:
    """A guest made wrong on purpose, mended as the audit says, beside one that runs."""
    libvirtd.start_guest("runs")
    define(libvirtd, WRONG)
    try:
        code, content = audited(libvirtd)
        assert code == 1
        ours = [one for one in content["findings"] if one["guest"] == "wrong"]
        assert {one["rule"] for one in ours} >= FOUND
        assert {(one["guest"], one["running"]) for one in content["guests"]} == {
            ("runs", True),
            ("wrong", False),
        }
        for rule in sorted(FOUND):
            _, content = audited(libvirtd, "--rule", rule)
            for one in content["findings"]:
                if one["guest"] == "wrong":
                    shell(libvirtd, one["command"])
        accepted = '<audit><skip rule="machine-*" reason="tried on pc only"/></audit>'
        where = "urn:tuned-virt-plus:audit:1 --key audit"
        shell(libvirtd, f"virsh metadata wrong {where} --set '{accepted}' --config")
        _, content = audited(libvirtd, "--rule", "machine-i440fx")
        suppressed = {one["guest"]: one["suppressed"] for one in content["findings"]}
        assert suppressed["wrong"]["reason"] == "tried on pc only"
        assert suppressed["runs"] is None
        code, content = audited(libvirtd, "--rule", *sorted(FOUND))
        left = [one for one in content["findings"] if one["guest"] == "wrong"]
        assert [(one["rule"], one["found"]) for one in left] == []
    finally:
        libvirtd.forget_guests()


def test_without_libvirtd_guests_are_not_checked_and_why_is_said(libvirtd: Libvirtd) -> None:
    libvirtd.kill9()
    try:
        _, content = audited(libvirtd)
        told = {one["rule"]: one["why"] for one in content["not_checked"]}
        assert told["disk-bus"].startswith("libvirt is unavailable")
        assert content["guests"] == []
    finally:
        libvirtd.start()


def test_commands_for_the_host(libvirtd: Libvirtd) -> None:
    """In libvirtd's own network namespace and mounts; pages are given back."""
    for command in (
        "ip link set dev lo mtu 9000",
        "sysctl -w net.ipv4.conf.all.arp_filter=1",
        "virsh allocpages --pagesize 2048 --pagecount 2 --cellno 0 --add",
        "virsh allocpages --pagesize 2048 --pagecount 0 --cellno 0",
        "mkdir -p /dev/hugepages2048K"
        " && mount -t hugetlbfs -o pagesize=2048K hugetlbfs /dev/hugepages2048K",
    ):
        shell(libvirtd, command)
