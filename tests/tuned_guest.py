# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that runs Debian's kernel over this machine's files, and in it TuneD with a profile.

Its first program is a script in an initramfs: it mounts the machine's root over 9p, and a layer of
its own above, so that it has the machine's TuneD and this checkout, and changes nothing of them.
What tests/vm/inside_guest.py finds there is a line in the file that is the guest's serial port.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from tests import agent_guest
from tests.sandbox import PYTHON, REPO
from tests.vm.boot import kernel_image
from tests.vm.inside_guest import RESULT

MODULES = ("virtio_pci", "virtio_blk", "9pnet_virtio", "9p", "overlay")

INIT = """#!/bin/busybox sh
export PATH=/bin
busybox mount -t proc proc /proc
busybox --install -s /bin
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in {modules}; do
    insmod /modules/$module
done
mkdir /machine /own /system
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 machine /machine
mount -t tmpfs own /own
mkdir /own/upper /own/work
mount -t overlay -o lowerdir=/machine,upperdir=/own/upper,workdir=/own/work overlay /system
for folder in proc sys dev; do mount --move /$folder /system/$folder; done
for folder in run tmp var/log var/lib/tuned-virt; do
    mkdir -p /system/$folder
    mount -t tmpfs own /system/$folder
done
echo "up after $(cut -d. -f1 /system/proc/uptime) s" >/system/dev/console
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
chroot /system sh -c 'cd {checkout} && exec {python} -m tests.vm.inside_guest {profile}' \
    >/system/dev/console 2>&1
echo ended >/system/dev/console
echo o >/system/proc/sysrq-trigger
exec /bin/sleep 1000
"""

DOMAIN = """
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>console=ttyS0 quiet panic=-1</cmdline>
  </os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <video><model type='none'/></video>
    <filesystem type='mount' accessmode='passthrough' multidevs='remap'>
      <source dir='/'/><target dir='machine'/><readonly/>
    </filesystem>
    <serial type='file'><source path='{port}'/></serial>
    {disk}
  </devices>
</domain>
"""


def domain(name: str, uuid: str, folder: Path, mib: int = 384, disk: str = "") -> str:
    """Its XML for libvirt; `disk` is an element. Files are in a folder."""
    return DOMAIN.format(
        name=escape(name),
        uuid=uuid,
        mib=mib,
        kernel=kernel_image(agent_guest.SERIES),
        initrd=folder / "initramfs",
        port=port(folder),
        disk=disk,
    )


def port(folder: Path) -> Path:
    """What the guest has printed."""
    return folder / "console"


def initramfs(folder: Path, profile: str) -> None:
    """Write the guest's first program, and what it needs before it has the machine's files."""
    busybox = shutil.which("busybox")
    assert busybox, "install busybox-static"
    modules = needed(MODULES)
    script = INIT.format(
        modules=" ".join(module.name for module in modules),
        checkout=REPO,
        python=PYTHON,
        profile=profile,
    )
    files = {"init": script.encode(), "bin/busybox": Path(busybox).read_bytes()}
    files |= {f"modules/{module.name}": module.read_bytes() for module in modules}
    (folder / "initramfs").write_bytes(agent_guest.newc(files))


def needed(names: tuple[str, ...]) -> list[Path]:
    """Files of the kernel's modules, each after those that it needs."""
    [index] = kernel_image(agent_guest.SERIES).parents[1].glob("lib/modules/*/modules.dep")
    found: dict[Path, None] = {}
    for name in names:
        [line] = re.findall(rf"^\S*/{name}\.ko:.*", index.read_text(), re.MULTILINE)
        found |= dict.fromkeys(
            index.parent / one for one in reversed(line.replace(":", "").split())
        )
    return list(found)


def result(folder: Path) -> Mapping[str, Any] | None:
    """What inside_guest.py has found, once it has told all of it."""
    told = re.search(rf"^{RESULT}(.*)\n", port(folder).read_text(errors="replace"), re.MULTILINE)
    if not told:
        return None
    found: Mapping[str, Any] = json.loads(told[1])
    return found
