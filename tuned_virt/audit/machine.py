# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's system, machine type, agent and manager: chapters 3.2.1 and 4."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tuned_virt.audit.rule import Found, Severity, guest_rule
from tuned_virt.audit.scene import AGENT, AuditedGuest, Scene
from tuned_virt.model.guest import printable

DEPRECATED = "https://www.qemu.org/docs/master/about/deprecated.html"

VERSION = re.compile(r"(?:pc|pc-i440fx|pc-q35|virt|pseries|s390-ccw-virtio)-(\d{1,2})\.(\d{1,2})")
OLDEST = (6, 0)
"""QEMU of 2021. Versioned types are deprecated after three years, and removed after six."""

OLD_NAMES = re.compile(
    r"(pc|pc-i440fx|pc-q35|virt|pseries)-(rhel[67]\.\S+|trusty|utopic|vivid|wily|xenial|yakkety"
    r"|zesty|artful|bionic|cosmic|disco|eoan)(-\w+)?|rhel6\.\S+"
)
"""Of RHEL 6 and 7, which RHEL 9 and 10 do not have, and of Ubuntu before 20.04."""


@guest_rule(
    "os-unknown",
    Severity.INFO,
    checks="a guest whose operating system is not recorded",
    advice="record it; osinfo-query os lists the names",
    why="virt-manager and virt-install choose virtio devices and clocks by it",
    guide="3.2.1",
    page="https://libvirt.org/formatdomain.html#general-metadata",
    mends="virt-xml {guest} --edit --metadata os_name={name}",
)
def os_unknown(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """libosinfo's element in <metadata>."""
    if not one.hardware.os_id and not one.guest.manager:
        yield Found("no libosinfo metadata; linux2022 stands for any Linux", {"name": "linux2022"})


@guest_rule(
    "machine-outdated",
    Severity.WARNING,
    checks="a machine type that QEMU deprecates or has removed",
    advice="the newest type of this machine, tried with a copy of the guest first",
    why="a QEMU without it does not start the guest; old types lack fixes and faster defaults",
    page=DEPRECATED,
    mends="virt-xml {guest} --edit --boot machine={machine}",
)
def outdated(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """By the QEMU version in its name."""
    machine = one.guest.machine
    version = VERSION.fullmatch(machine)
    old = version is not None and (int(version[1]), int(version[2])) < OLDEST
    if old or OLD_NAMES.fullmatch(machine):
        yield Found(f"its machine type is {printable(machine[:60])}", {"machine": _newest(machine)})


def _newest(machine: str) -> str:
    """The alias that libvirt replaces with the newest version."""
    names = ("q35", "virt", "pseries", "s390-ccw-virtio")
    return next((name for name in names if name in machine), "pc")


@guest_rule(
    "machine-i440fx",
    Severity.INFO,
    checks="a guest on the i440fx chipset of 1996",
    advice="q35 for new guests; an installed guest is better left as it is",
    why="it has no PCI Express, so no native hot plug, and RHEL 8 and later deprecate it",
    page="https://www.qemu.org/docs/master/system/i386/pc.html",
)
def i440fx(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Also by libvirt's default, which is pc."""
    if one.is_x86 and re.fullmatch(r"pc(-i440fx-.*)?|pc-\d.*", one.guest.machine):
        yield Found(f"its machine type is {printable(one.guest.machine[:60])}")


@guest_rule(
    "guest-agent-missing",
    Severity.INFO,
    checks="a guest without a channel for the guest agent",
    advice="a channel, and qemu-guest-agent in the guest",
    why="without it snapshots are not consistent, and the guest's own tuning cannot be checked",
    page="https://wiki.libvirt.org/Qemu_guest_agent.html",
    mends="virt-xml {guest} --add-device --channel unix,target.type=virtio,target.name=" + AGENT,
)
def agent_missing(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Managers bring their own."""
    if not one.has_agent and not one.guest.manager:
        yield Found("no channel org.qemu.guest_agent.0")


@guest_rule(
    "guest-managed",
    Severity.INFO,
    checks="a guest that another manager owns",
    advice="change it there: in its flavor, template or VirtualMachine",
    why="the manager writes the guest's XML anew at each start, and places it itself",
    page="https://libvirt.org/formatdomain.html#general-metadata",
)
def managed(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """By the namespace of its metadata."""
    if one.guest.manager:
        yield Found(f"{one.guest.manager} manages it")


@guest_rule(
    "guest-profile",
    Severity.INFO,
    checks="a guest inside which no TuneD profile for guests is active",
    advice="in the guest: tuned-adm profile virtual-guest-plus, or virtual-guest",
    why="its swappiness, write-back and schedulers are those of a real machine",
    guide="4.2",
    page="https://manpages.ubuntu.com/manpages/noble/man7/tuned-profiles.7.html",
)
def guest_profile(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """As the guest agent says it."""
    if not one.running or not one.has_agent:
        return
    active = one.profile.get()
    if not any(name.startswith("virtual-guest") for name in active.split()):
        yield Found(f"the profile in it is {printable(active[:60]) or 'none'}")
