# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that runs Debian's kernel and QEMU's own guest agent, and nothing else.

Its first program is a script in an initramfs: busybox, the modules of a virtio serial port, qemu-ga
with its libraries from this machine. The kernel's `agent.block=` names commands that the agent has
disabled; `agent.hide=1` hides the kernel's addresses.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from tests import debian
from tests.debian import CACHE
from tests.vm.boot import kernel_image

SERIES = "6.1"
SUITE = "bookworm"
AGENT = "qemu-guest-agent"
MODULES = (
    "virtio/virtio",
    "virtio/virtio_ring",
    "virtio/virtio_pci_legacy_dev",
    "virtio/virtio_pci_modern_dev",
    "virtio/virtio_pci",
    "char/virtio_console",
)
"""In the order in which they need each other."""

PORT = "org.qemu.guest_agent.0"

INIT = f"""#!/bin/busybox sh
export PATH=/bin
busybox mount -t proc proc /proc
busybox --install -s /bin
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in {" ".join(name.rpartition("/")[2] for name in MODULES)}; do
    insmod /modules/$module.ko
done
block= hide=
for word in $(cat /proc/cmdline); do
    case $word in
    agent.block=*) block=${{word#*=}} ;;
    agent.hide=*) echo 2 >/proc/sys/kernel/kptr_restrict ;;
    esac
done
until port=$(grep -l {PORT} /sys/class/virtio-ports/*/name); do sleep 1; done
port=/dev/$(basename $(dirname $port))
mkdir -p /run /var/run
exec qemu-ga --method virtio-serial --path $port --statedir /run ${{block:+--block-rpcs $block}}
"""

DOMAIN = """
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>256</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>quiet panic=-1 {arguments}</cmdline>
  </os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <controller type='virtio-serial'/>
    <channel type='unix'><target type='virtio' name='{port}'/></channel>
    <video><model type='none'/></video>
  </devices>
</domain>
"""


def agent() -> Path:
    """Debian's qemu-ga; downloaded once, then kept. Raises debian.Unavailable."""
    return debian.unpacked(AGENT, SUITE, CACHE) / "usr/sbin/qemu-ga"


def domain(name: str, initrd: Path, arguments: str = "") -> str:
    """Its XML for libvirt."""
    return DOMAIN.format(
        name=escape(name),
        kernel=kernel_image(SERIES),
        initrd=initrd,
        arguments=arguments,
        port=PORT,
    )


def initramfs(target: Path) -> Path:
    """Write the guest's system, as the kernel unpacks it."""
    program, busybox = agent(), shutil.which("busybox")
    assert busybox, "install busybox-static"
    drivers = next(kernel_image(SERIES).parents[1].glob("lib/modules/*/kernel/drivers"))
    files: dict[str, bytes] = {"init": INIT.encode(), "bin/busybox": Path(busybox).read_bytes()}
    files["bin/qemu-ga"] = program.read_bytes()
    for name in MODULES:
        files[f"modules/{name.rpartition('/')[2]}.ko"] = (drivers / f"{name}.ko").read_bytes()
    files |= {path.lstrip("/"): Path(path).read_bytes() for path in libraries(program)}
    target.write_bytes(newc(files))
    return target


def libraries(program: Path) -> list[str]:
    """What a program is linked with, the loader too."""
    told = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    assert "not found" not in told, told
    return re.findall(r"(/\S+) \(0x", told)


def newc(files: Mapping[str, bytes]) -> bytes:
    """A cpio archive of programs, with their folders and empty ones for file systems."""
    folders = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    folders |= {"proc", "sys", "dev"}
    entries = [(name, b"", 0o040755) for name in sorted(folders)]
    entries += [(name, content, 0o100755) for name, content in files.items()]
    members = [_member(*entry, number) for number, entry in enumerate(entries, 1)]
    return b"".join([*members, _member("TRAILER!!!", b"", 0, 0)])


def _member(name: str, content: bytes, mode: int, number: int) -> bytes:
    """As the kernel's Documentation/driver-api/early-userspace/buffer-format.rst has it."""
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(content)


def _padded(text: bytes) -> bytes:
    return text + b"\0" * (-len(text) % 4)
