# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine of the matrix boots from: a disk, a kernel's modules, and this checkout.

The disk is a Debian with systemd, libvirt, QEMU and one TuneD; made once, then kept. This checkout
and the tests are in the initramfs, which copies them onto the disk, so that they are always new.
"""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests import debian, sandbox
from tests.debian import CACHE
from tests.matrix.cells import Cell
from tests.vm import boot

FOLDER = CACHE.resolve() / "matrix"
HERE = Path(__file__).parent

INCLUDED = (
    *("tuned", "dbus", "systemd-sysv", "systemd-container", "udev", "kmod"),
    *("libvirt-daemon-system", "libvirt-clients", "qemu-system-x86"),
    *("python3-configobj", "python3-dbus", "python3-defusedxml", "python3-jinja2"),
    *("python3-jsonschema", "python3-libvirt"),
)

LEFT_OUT = (
    *("/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/man/*"),
    *("/usr/bin/qemu-system-i386", "/etc/libvirt/qemu/networks/autostart/*"),
)

MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("e2scrub_reap.service", "fstrim.timer", "man-db.timer", "logrotate.timer"),
    *("libvirt-guests.service", "getty.target", "serial-getty@ttyS0.service"),
    *("systemd-networkd-wait-online.service", "networking.service", "systemd-pstore.service"),
)
"""Units that only take time; libvirt-guests waits for guests that have no system to shut down."""

SIZE = "2G"

PACKAGES = "usr/lib/python3/dist-packages"
INSIDE = "opt/tuned-virt-matrix/tests"
"""Where the machine has the tests."""

DRIVERS = ("virtio_pci", "virtio_scsi", "sd_mod", "ext4", "9pnet_virtio", "9p")

INIT = """\
#!/bin/busybox sh
set -e
/bin/busybox --install /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module || :; done
until mount -t ext4 /dev/sda /disk 2>/dev/null; do sleep 0.1; done
rm -rf /disk/opt/tuned-virt-matrix /disk/usr/lib/python3/dist-packages/tuned_virt
tar -C /checkout -c . | tar -C /disk -x
modules=/disk/usr/lib/modules/$(uname -r)
mkdir -p $modules
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose modules $modules
umount /proc
exec switch_root /disk /sbin/init
"""
"""Drivers for CPUs of another kind fail; those of the disk are waited for."""


def disk(cell: Cell) -> Path:
    """The disk of a cell's Debian and TuneD, not yet booted. Raises debian.Unavailable."""
    image = FOLDER / "disks" / f"{cell.suite}-{cell.tuned}.img"
    if not image.exists():
        root = debian.bootstrap(cell.suite, FOLDER / "roots" / cell.suite, INCLUDED, LEFT_OUT)
        image.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=image.parent) as scratch:
            tree = Path(scratch) / "tree"
            subprocess.run(["cp", "--archive", "--reflink=auto", str(root), str(tree)], check=True)
            if cell.suite != cell.own_suite:
                replace_tuned(tree, cell.tuned)
            quieten(tree)
            new = Path(scratch) / "new.img"
            subprocess.run(
                ["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(new), SIZE], check=True
            )
            new.rename(image)
    return image


def replace_tuned(tree: Path, version: str) -> None:
    """Lay another release's TuneD over a root."""
    layer = sandbox.tuned_layer(version)
    for folder in sandbox.REPLACED_FOLDERS:
        shutil.rmtree(tree / folder, ignore_errors=True)
    subprocess.run(["cp", "--recursive", f"{layer}/.", str(tree)], check=True)


def quieten(tree: Path) -> None:
    """Leave out what only takes time. TuneD begins without a profile, as after `tuned-adm off`."""
    units = tree / "etc/systemd/system"
    for unit in MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    (tree / "etc/hostname").write_text("matrix\n")
    (tree / "etc/tuned/active_profile").write_text("")
    (tree / "etc/tuned/profile_mode").write_text("manual\n")
    shutil.rmtree(tree / "var/cache/apt", ignore_errors=True)
    shutil.rmtree(tree / "var/lib/apt/lists", ignore_errors=True)


def checkout(cell: Cell, folder: Path) -> None:
    """Lay this checkout, installed, and the tests out below a folder, for the Python of a cell."""
    make = ["make", "--silent", "install", f"DESTDIR={folder}", f"SITELIB=/{PACKAGES}"]
    subprocess.run(make, cwd=boot.CHECKOUT, check=True, stdout=subprocess.DEVNULL)
    for name in ("__init__.py", "kernel_snapshot.py", "matrix"):
        source, target = HERE.parent / name, folder / INSIDE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "root"))
        else:
            shutil.copy(source, target)
    shutil.copytree(HERE / "root", folder, dirs_exist_ok=True)
    if cell.cgroup == "v1":
        isolate_nothing(folder / "etc/tuned/virtual-host-plus-variables.conf")
    wants = folder / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / "tuned-virt-matrix.service").symlink_to("../tuned-virt-matrix.service")
    compile_for(FOLDER / "roots" / cell.suite, folder)


def isolate_nothing(settings: Path) -> None:
    """With cgroup v1 verify fails where isolation is asked for, as it should."""
    text = settings.read_text()
    settings.write_text(text.replace("vm_isolation=host", "vm_isolation=none"))


def compile_for(root: Path, folder: Path) -> None:
    """Byte-code by the Python of a root, which takes many times longer under emulation."""
    script = (
        'mount --bind "$2" "$1/mnt" && '
        'exec chroot "$1" python3 -m compileall -q -s /mnt -p / /mnt/usr /mnt/opt'
    )
    unshare = ["unshare", "--mount", "--propagation", "private"]
    subprocess.run([*unshare, "sh", "-c", script, "sh", str(root), str(folder)], check=True)


def modules_of(kernel: str) -> Path:
    """Folder of a kernel's modules."""
    boot.kernel_image(kernel)
    [folder] = (CACHE.resolve() / "vm/kernels" / kernel / "lib/modules").iterdir()
    return folder


def initramfs(cell: Cell, into: Path) -> Path:
    """An initramfs that mounts disk and modules, and brings this checkout. A file in a folder."""
    archive = into / "initramfs"
    with tempfile.TemporaryDirectory(dir=into) as scratch:
        tree = Path(scratch)
        for name in ("bin", "dev", "proc", "disk", "modules", "checkout"):
            (tree / name).mkdir()
        shutil.copy(shutil.which("busybox") or "busybox", tree / "bin/busybox")
        for name, content in drivers(modules_of(cell.kernel)):
            (tree / "modules" / name).write_bytes(content)
            with (tree / "modules/order").open("a") as order:
                order.write(f"{name}\n")
        checkout(cell, tree / "checkout")
        (tree / "init").write_text(INIT)
        (tree / "init").chmod(0o755)
        pack = "find . | busybox cpio -o -H newc"
        with archive.open("wb") as file:
            subprocess.run(
                ["sh", "-c", pack], cwd=tree, stdout=file, stderr=subprocess.DEVNULL, check=True
            )
    return archive


def drivers(modules: Path) -> Iterator[tuple[str, bytes]]:
    """Name and uncompressed content of the modules that a disk and 9p take, in order."""
    base = str(modules.parents[2])
    seen = set()
    for driver in DRIVERS:
        command = ["modprobe", "-C", "/var/empty", "-d", base, "-S", modules.name, "--show-depends"]
        done = subprocess.run([*command, driver], capture_output=True, text=True, check=True)
        for line in done.stdout.splitlines():
            kind, path = line.split()[:2]
            if kind == "insmod" and path not in seen:
                seen.add(path)
                content = Path(path).read_bytes()
                name = os.path.basename(path)
                yield (
                    name.removesuffix(".xz"),
                    lzma.decompress(content) if name.endswith(".xz") else content,
                )
