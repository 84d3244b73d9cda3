# SPDX-License-Identifier: GPL-2.0-or-later
"""Images: what docs/images has runs in a system in a folder, and one that is made so boots."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from tests.packages.conftest import Built
from tests.packages.roots import Root
from tests.sandbox import REPO
from tests.vm import boot

IMAGES = REPO / "docs/images"
GUEST = "/usr/lib/tuned-virt/virtual-guest-plus-variables.conf"
HOST = GUEST.replace("guest", "host")
KERNEL = "6.1"
SIZE = "900M"
SECONDS = 600

REPORT = """[Unit]
After=tuned.service
[Service]
Type=oneshot
StandardOutput=tty
TTYPath=/dev/console
ExecStart=-/bin/sh -c 'tuned-adm active; tuned-adm verify; cat /proc/sys/vm/swappiness; tuned-virt status'
ExecStart=/bin/echo said all
ExecStart=/bin/systemctl poweroff
[Install]
WantedBy=multi-user.target
"""  # noqa: E501


def install(root: Root, debs: Built, *parts: str) -> None:
    names = [next(debs.now.glob(f"tuned-virt-plus{part}_*.deb")) for part in ("", *parts)]
    inside = [root.put(file, "/debs") for file in names]
    root.run("apt-get", "--yes", "--no-install-recommends", "install", *inside)


def test_a_bootc_image_has_settings_arguments_and_the_profile(root: Root, debs: Built) -> None:
    """dnf, systemctl for libvirt and the kernel's folder apart, as this root is a Debian."""
    install(root, debs, "-host")
    text = (IMAGES / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith(("RUN", "COPY"))]
    [copied] = [line.split() for line in lines if line.startswith("COPY")]
    root.put(IMAGES / copied[1], copied[2].rstrip("/"))
    (root.path / "usr/lib/modules/6.12.0-1.el10.x86_64").mkdir(parents=True)
    for line in lines:
        command = line.removeprefix("RUN ").replace(" && systemctl enable virtqemud.service", "")
        if line.startswith("RUN") and "dnf" not in command:
            root.run("sh", "-euc", command.replace(" virtnetworkd.socket", ""))
    kargs = root.text("/usr/lib/bootc/kargs.d/20-tuned-virt.toml")
    assert kargs == 'kargs = ["hugepagesz=1G", "hugepages=8"]\n'
    assert root.text("/etc/tuned/active_profile") == "virtual-host-plus\n"
    root.run("sh", "-c", f"echo ksm_mod=off >> {HOST}")
    assert "did you mean ksm_mode?" in root.run("tuned-virt", "check-settings", HOST, status=2)


def test_cloud_inits_user_data(root: Root, debs: Built) -> None:
    data = yaml.safe_load((IMAGES / "cloud-init.yaml").read_text())
    assert (IMAGES / "cloud-init.yaml").read_text().startswith("#cloud-config\n")
    assert data["packages"] == ["tuned-virt-plus-guest"]
    install(root, debs, "-guest")
    for file in data["write_files"]:
        (root.path / file["path"].lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (root.path / file["path"].lstrip("/")).write_text(file["content"])
    assert "right for virtual-guest-plus (1 set)" in root.run(*data["runcmd"][0])
    named = [command[0] for command in data["runcmd"]]
    assert named == ["tuned-virt", "systemctl", "tuned-adm", "tuned-virt"]


def test_virt_customizes_commands(root: Root, debs: Built) -> None:
    text = (IMAGES / "virt-customize.sh").read_text()
    [(file, content)] = re.findall(r"--write (\S+?):(\S+)", text)
    install(root, debs, "-guest")
    (root.path / re.findall(r"--mkdir (\S+)", text)[0].lstrip("/")).mkdir()
    (root.path / file.lstrip("/")).write_text(content)
    commands = re.findall(r'--run-command "([^"]+)"', text)
    assert len(commands) == 2
    for command in commands:
        root.run(*command.split())
    assert root.text("/etc/tuned/active_profile") == "virtual-guest-plus\n"


def image(root: Root, folder: Path) -> Path:
    """A disk with the root's files."""
    tree, disk = folder / "tree", folder / "disk.img"
    tree.mkdir()
    left_out = [f"--exclude=./{name}/*" for name in ("proc", "sys", "dev", "run", "debs")]
    packed = ["tar", "-C", root.inside, *left_out, "-cf", str(folder / "root.tar"), "."]
    done = root.outside(packed)
    assert done.returncode == 0, done.stderr
    subprocess.run(["tar", "-C", str(tree), "-xf", str(folder / "root.tar")], check=True)
    made = ["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(disk), SIZE]
    subprocess.run(made, check=True)
    return disk


def console(disk: Path) -> str:
    """What the machine prints that boots from a disk, with its own systemd, until it is off."""
    vng = str(Path(sys.executable).with_name("vng"))
    done = subprocess.run(
        [
            *(vng, "--run", str(boot.kernel_image(KERNEL)), "--verbose", "--user", "root"),
            *("--disable-kvm", "--disable-microvm", "--cpus", "2", "--memory", "1G"),
            *("--root-disk", str(disk), "--root-fstype", "ext4", "--rw", "--systemd"),
        ],
        env={**os.environ, "PATH": f"{Path(vng).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
        check=False,
    )
    return done.stdout.decode(errors="replace")


def test_an_image_boots_with_the_profile_active_and_verified(
    root: Root, debs: Built, tmp_path: Path
) -> None:
    install(root, debs, "-guest")
    script = root.put(IMAGES / "mkosi.postinst.chroot", "/debs")
    root.run(script)
    (root.path / "etc/systemd/system/report.service").write_text(REPORT)
    root.run("systemctl", "enable", "tuned.service", "report.service")
    said = console(image(root, tmp_path))
    assert "said all" in said, said[-5000:]
    assert "Current active profile: virtual-guest-plus" in said
    assert re.search("Veri?fication succeeded", said), said[-5000:]  # 2.20 spells it so
    assert re.search(r"^20\r?$", said, re.MULTILINE), "swappiness of the image's settings"
    assert "profile   virtual-guest-plus, verified" in said
