# SPDX-License-Identifier: GPL-2.0-or-later
"""A scene in which each rule of the topic finds something, and one in which it does not."""

from __future__ import annotations

from tests.unit.audit.scenes import AGENT, DISK, Case, guest, scene

TABLET = "<input type='tablet' bus='usb'/>"
VNC = "<graphics type='vnc'/>"
SPICE = "<graphics type='spice'/>"
REDIRECTED = "<redirdev bus='usb' type='spicevmc'/>"
FLOPPY = "<disk type='file' device='floppy'><target dev='fda' bus='fdc'/></disk>"
REMOVE = "virt-xml vm1 --remove-device "
USB = "virt-xml vm1 --edit type=usb --controller clearxml=yes,type=usb,model="


def having(*devices: str) -> str:
    return guest(devices="".join([AGENT, *devices]))


def usb(*models: str) -> str:
    return "".join(f"<controller type='usb' model='{model}'/>" for model in models)


CASES = {
    "device-tablet": Case(
        fails=scene(having(TABLET)),
        found="a USB tablet, and no graphics",
        command=REMOVE + "--input type=tablet,bus=usb",
        passes=scene(having("<input type='mouse' bus='ps2'/>")),
        also={"a USB tablet, and vnc graphics": scene(having(TABLET, VNC))},
        fine=(scene(having("<input type='tablet' bus='virtio'/>")),),
    ),
    "device-floppy": Case(
        fails=scene(guest(disks=DISK + FLOPPY)),
        found="1 floppy drive",
        command=REMOVE + "--disk device=floppy",
        passes=scene(guest()),
    ),
    "device-sound": Case(
        fails=scene(having("<sound model='ich9'/>")),
        found="ich9",
        command=REMOVE + "--sound all",
        passes=scene(guest()),
    ),
    "device-usb-unused": Case(
        fails=scene(having(usb("qemu-xhci"))),
        found="qemu-xhci",
        command=USB + "none",
        passes=scene(having(usb("none"))),
        fine=(scene(having(usb("qemu-xhci"), TABLET)), scene(guest())),
    ),
    "device-usb1": Case(
        fails=scene(having(usb("piix3-uhci"), TABLET)),
        found="piix3-uhci",
        command=USB + "qemu-xhci",
        passes=scene(having(usb("qemu-xhci"), TABLET)),
        fine=(scene(having(usb("piix3-uhci"))),),
    ),
    "device-serial-unused": Case(
        fails=scene(having("<serial type='pty'/><serial type='pty'/>")),
        found="serial port 2 is pty",
        command=REMOVE + "--serial 2",
        passes=scene(having("<serial type='pty'/>")),
        also={
            "serial port 1 is null": scene(having("<serial type='null'/>")),
            "a parallel port": scene(having("<parallel type='null'/>")),
        },
        fine=(scene(having("<serial type='pty'/><serial type='tcp'/>")),),
    ),
    "device-usb-redirection": Case(
        fails=scene(having(REDIRECTED, REDIRECTED, VNC)),
        found="2 channels",
        command=REMOVE + "--redirdev all",
        passes=scene(having(REDIRECTED, SPICE)),
    ),
    "device-video-unused": Case(
        fails=scene(having("<video><model type='vga'/></video>")),
        found="vga",
        command="virt-xml vm1 --edit --video clearxml=yes,model=none",
        passes=scene(having("<video><model type='virtio'/></video>", VNC)),
        fine=(scene(having("<video><model type='none'/></video>")),),
    ),
}
