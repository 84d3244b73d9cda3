# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices that nobody uses: chapter 3.2.2."""

from __future__ import annotations

from collections.abc import Iterator

from tuned_virt.audit.rule import Found, Severity, guest_rule
from tuned_virt.audit.scene import AuditedGuest, Scene

INPUT = "https://libvirt.org/formatdomain.html#input-devices"
CONTROLLERS = "https://libvirt.org/formatdomain.html#controllers"
CONSOLES = "https://libvirt.org/formatdomain.html#consoles-serial-parallel-channel-devices"
POLLED = ("piix3-uhci", "piix4-uhci", "ich9-uhci1", "ich9-uhci2", "ich9-uhci3", "vt82c686b-uhci")
"""USB 1 controllers: the guest's driver has QEMU's timer run for each frame, 1,000 a second."""


@guest_rule(
    "device-tablet",
    Severity.INFO,
    checks="a USB tablet, which only a graphical console needs",
    advice="remove it, unless somebody uses the guest's graphical console",
    why="QEMU and the guest wake up for it, and it keeps a USB controller in the guest",
    guide="3.2.2",
    page=INPUT,
    mends="virt-xml {guest} --remove-device --input type=tablet,bus=usb",
)
def tablet(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Also one that came with the graphics."""
    if ("tablet", "usb") in one.hardware.inputs:
        graphics = ", ".join(one.hardware.graphics)
        yield Found(f"a USB tablet, and {graphics or 'no'} graphics")


@guest_rule(
    "device-floppy",
    Severity.INFO,
    checks="a floppy drive",
    advice="remove the drive; a CD-ROM image carries files as well",
    why="the guest looks for it at boot, and QEMU's floppy controller has had serious flaws",
    guide="3.2.2",
    page="https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms",
    mends="virt-xml {guest} --remove-device --disk device=floppy",
)
def floppy(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """VENOM (CVE-2015-3456) was in its controller."""
    drives = [disk.target for disk in one.hardware.disks if disk.device == "floppy"]
    if drives:
        yield Found(f"{len(drives)} floppy drive{'s' if len(drives) > 1 else ''}")


@guest_rule(
    "device-sound",
    Severity.INFO,
    checks="a sound card",
    advice="remove it, unless somebody listens to the guest",
    why="QEMU's audio timer runs while the guest's driver keeps the card open",
    guide="3.2.2",
    page="https://libvirt.org/formatdomain.html#sound-devices",
    mends="virt-xml {guest} --remove-device --sound all",
)
def sound(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Of any model."""
    if one.hardware.sounds:
        yield Found(f"{', '.join(one.hardware.sounds)[:60]}")


def _uses_usb(one: AuditedGuest) -> bool:
    hardware = one.hardware
    return (
        any(bus == "usb" for _, bus in hardware.inputs)
        or any(disk.bus == "usb" for disk in hardware.disks)
        or bool(hardware.usb_passed or hardware.redirections)
    )


@guest_rule(
    "device-usb-unused",
    Severity.INFO,
    checks="USB controllers to which nothing is attached",
    advice="<controller type='usb' model='none'/>",
    why="the guest's drivers poll them, and each takes memory and a PCI slot",
    guide="3.2.2",
    page=CONTROLLERS,
    mends="virt-xml {guest} --edit type=usb --controller clearxml=yes,type=usb,model=none",
)
def usb_unused(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Those that the XML names."""
    models = [model for kind, model in one.hardware.controllers if kind == "usb"]
    if models and "none" not in models and not _uses_usb(one):
        named = ", ".join(model or "usb" for model in models)[:80]
        yield Found(named, {} if len(models) == 1 else None)


@guest_rule(
    "device-usb1",
    Severity.INFO,
    checks="a USB 1 controller",
    advice="model qemu-xhci, which serves devices of every speed",
    why="QEMU has a timer that runs 1,000 times a second while a device is attached to one",
    guide="3.2.2",
    page="https://www.qemu.org/docs/master/system/devices/usb.html",
    mends="virt-xml {guest} --edit type=usb --controller clearxml=yes,type=usb,model=qemu-xhci",
)
def usb1(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Companions of an EHCI controller serve slow devices."""
    models = [model for kind, model in one.hardware.controllers if kind == "usb"]
    if any(model in POLLED for model in models) and _uses_usb(one):
        yield Found(", ".join(models)[:80], {} if len(models) == 1 else None)


@guest_rule(
    "device-serial-unused",
    Severity.INFO,
    checks="serial or parallel ports that lead nowhere",
    advice="one serial port for virsh console, no parallel port",
    why="each character is an exit to QEMU, and the guest writes its log there",
    guide="3.2.2",
    page=CONSOLES,
    mends="virt-xml {guest} --remove-device --{kind} {number}",
)
def serial_unused(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """The first serial port is the console's, unless it is null."""
    serials = list(enumerate(one.hardware.serials, 1))
    odd = [at for at, kind in serials if kind == "null" or (at > 1 and kind == "pty")]
    if odd:
        told = f"serial port {odd[-1]} is {one.hardware.serials[odd[-1] - 1]}"
        yield Found(told, {"kind": "serial", "number": odd[-1]})
    if one.hardware.parallels:
        yield Found("a parallel port", {"kind": "parallel", "number": "all"})


@guest_rule(
    "device-usb-redirection",
    Severity.INFO,
    checks="USB redirection without a SPICE console",
    advice="remove the redirection devices",
    why="only SPICE clients can redirect devices through it",
    guide="3.2.2",
    page="https://libvirt.org/formatdomain.html#redirected-devices",
    mends="virt-xml {guest} --remove-device --redirdev all",
)
def redirection(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """virt-install adds two with SPICE."""
    if one.hardware.redirections and "spice" not in one.hardware.graphics:
        yield Found(f"{one.hardware.redirections} channels")


@guest_rule(
    "device-video-unused",
    Severity.INFO,
    checks="a video card without a graphical console",
    advice="<model type='none'/>",
    why="nobody sees what the guest draws; it takes memory and a PCI slot",
    guide="3.2.2",
    page="https://libvirt.org/formatdomain.html#video-devices",
    mends="virt-xml {guest} --edit --video clearxml=yes,model=none",
)
def video_unused(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """A GPU that is passed through has its own."""
    models = [model for model in one.hardware.videos if model != "none"]
    if models and not one.hardware.graphics and one.is_x86:
        yield Found(", ".join(models)[:60])
