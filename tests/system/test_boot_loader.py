# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel arguments for huge pages in the boot loader's files, by TuneD's own bootloader plugin.

Debian's grub.cfg, RHEL's entries of the Boot Loader Specification (BLS), and rpm-ostree.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.sandbox import Sandbox, SystemdSandbox, wait_for

OURS = "virtual-host-plus"
PAGES = "hugepagesz=1G hugepages=0:1"
THEIRS = "mce=on quiet"
SETTINGS = "hugepages_1G=0:1\nhugepages_boot=auto\nhugepages_reserve_free=100%\n"
"""Pages at boot, and none now: the whole of the node's memory is kept free of them."""

FILES = {
    f"/etc/tuned/{OURS}-variables.conf": SETTINGS,
    "/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
}
PROFILES = {
    "kernel_settings": f"[main]\nsummary = kernel settings\n[bootloader]\ncmdline = {THEIRS}\n",
    "between": "[main]\nsummary=nothing\n",
}

GRUB_CFG = """\
### BEGIN /etc/grub.d/00_header ###
set default="0"
### END /etc/grub.d/00_header ###

### BEGIN /etc/grub.d/10_linux ###
menuentry 'Debian GNU/Linux' --class debian {
	linux	/boot/vmlinuz-6.1.0-37-amd64 root=UUID=1234 ro quiet
	initrd	/boot/initrd.img-6.1.0-37-amd64
}
menuentry 'Debian GNU/Linux, 6.1.0-35' --class debian {
	linux	/boot/vmlinuz-6.1.0-35-amd64 root=UUID=1234 ro quiet
	initrd	/boot/initrd.img-6.1.0-35-amd64
}
### END /etc/grub.d/10_linux ###
"""

ENTRY = "title Fedora\nlinux /vmlinuz\noptions root=UUID=1234 ro $tuned_params\ninitrd /initrd\n"

BLS_HOOK = "#!/bin/sh\nexit 0\n"
"""What TuneD's 92-tuned.install does with entries that have $tuned_params already."""

RPM_OSTREE = """#!/bin/sh
case $1 in status) echo "State: idle"; exit ;; esac
shift
[ $# -gt 0 ] || exec cat /var/kargs
for argument; do
    value=${argument#--*=} kept= found=
    for word in $(cat /var/kargs); do
        if [ "$argument" = "--delete=$word" ] && [ -z "$found" ]; then
            found=1
        else
            kept="$kept $word"
        fi
    done
    case $argument in
    --append=*) kept="$kept $value" ;;
    *) [ -n "$found" ] || exit 1 ;;
    esac
    echo $kept >/var/kargs
done
"""


@dataclass(frozen=True)
class Layout:
    """Where a distribution has the kernel's arguments, and how its files become programs."""

    files: dict[str, str]
    setup: str = ":"


LAYOUTS = {
    "debian": Layout(
        {"/boot/grub/grub.cfg": GRUB_CFG, "/etc/default/grub": "GRUB_DEFAULT=0\n"},
        "rm -rf /boot/loader",
    ),
    "bls": Layout(
        {
            "/boot/grub/grub.cfg": GRUB_CFG,
            "/etc/default/grub": 'GRUB_DEFAULT=saved\nGRUB_ENABLE_BLSCFG="true"\n',
            "/boot/loader/entries/fedora.conf": ENTRY,
            "/usr/lib/kernel/install.d/92-tuned.install": BLS_HOOK,
        },
        "chmod 755 /usr/lib/kernel/install.d/92-tuned.install; rm -f /boot/grub/grubenv;"
        " grub-editenv - create",
    ),
    "rpm-ostree": Layout(
        {"/usr/bin/rpm-ostree": RPM_OSTREE, "/var/kargs": "root=UUID=1234 rw\n"},
        "chmod 755 /usr/bin/rpm-ostree; rm -rf /boot/grub /boot/loader",
    ),
}


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def check_script(t: Sandbox, text: str, tmp: Path) -> None:
    """Raises CalledProcessError where GRUB could not read it."""
    script = tmp / "grub.cfg"
    script.write_text(text)
    checker = shutil.which("grub-script-check") or "grub2-script-check"
    subprocess.run([checker, str(script)], check=True, capture_output=True, text=True)


def tuned_arguments(t: Sandbox) -> str:
    """What TuneD notes of its own for the boot loader's scripts, which the shell must be able to
    read: they are in one line of a file that grub-mkconfig sources."""
    text = t.read("/etc/tuned/bootcmdline")
    [found] = re.findall(r'^TUNED_BOOT_CMDLINE="(.*)"$', text, re.MULTILINE)
    assert text.count("TUNED_BOOT_CMDLINE") == 1
    assert t.run(["sh", "-n", "/etc/tuned/bootcmdline"]).returncode == 0
    return str(found)


def boot_arguments(t: Sandbox, layout: str, tmp: Path) -> str:
    """What the next boot has of TuneD's, by the layout's own files; each must be well-formed."""
    if layout == "rpm-ostree":
        _, _, found = t.read("/var/kargs").partition("root=UUID=1234 rw")
        return found.strip()
    text = t.read("/boot/grub/grub.cfg") + "\n"
    check_script(t, text, tmp)
    [arguments] = re.findall(r'^set tuned_params="(.*)"$', text, re.MULTILINE)
    assert text.count("$tuned_params") == text.count("menuentry '")
    if layout == "bls":
        [arguments] = re.findall(
            r"^tuned_params=(.*)$", t.run(["grub-editenv", "-", "list"]).stdout, re.MULTILINE
        )
        assert t.read("/boot/loader/entries/fedora.conf").count("$tuned_params") == 1
    return str(arguments)


def open_sandbox(tuned: Callable[..., Sandbox], version: str, layout: str, **files: str) -> Sandbox:
    chosen = LAYOUTS[layout]
    return tuned(
        version, profiles=PROFILES, files={**FILES, **chosen.files, **files}, setup=chosen.setup
    )


def test_arguments_are_written_once_however_often(
    tuned: Callable[..., Sandbox], version: str, layout: str, tmp_path: Path
) -> None:
    t = open_sandbox(tuned, version, layout)

    def check() -> None:
        assert boot_arguments(t, layout, tmp_path) == PAGES
        assert tuned_arguments(t) == PAGES

    for activation in range(1, 11):
        t.switch(OURS)
        if activation in (1, 2, 3, 10):
            check()
    t.sighup()
    check()
    t.terminate()
    t.start()
    check()
    t.switch("between")
    t.switch(OURS)
    check()
    t.off()
    left = boot_arguments(t, layout, tmp_path)
    assert left in ("", PAGES)  # as TuneD without systemd: it keeps them for the next boot
    assert tuned_arguments(t) == left
    assert "Traceback" not in t.log()


@pytest.mark.parametrize("names", [f"{OURS} kernel_settings", f"kernel_settings {OURS}"])
def test_arguments_of_another_profile_are_kept(
    tuned: Callable[..., Sandbox], version: str, layout: str, names: str, tmp_path: Path
) -> None:
    t = open_sandbox(tuned, version, layout)
    wanted = {*PAGES.split(), *THEIRS.split()}
    for _ in range(3):
        t.switch(names)
        found = boot_arguments(t, layout, tmp_path).split()
        assert set(found) == wanted
        assert len(found) == len(wanted)
    t.write(f"/etc/tuned/{OURS}-variables.conf", "")
    t.switch(names)
    assert boot_arguments(t, layout, tmp_path).split() == THEIRS.split()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ("hugepages_1G=0:4x\n", "0:4x"),
        ("hugepages_1G=99:1\n", "nodes with memory here are"),
        ("hugepages_1G=${nothing}\n", "hugepages_1G"),
    ],
)
def test_what_cannot_be_had_is_nothing_and_said(
    tuned: Callable[..., Sandbox],
    version: str,
    layout: str,
    settings: str,
    why: str,
    tmp_path: Path,
) -> None:
    t = open_sandbox(tuned, version, layout)
    t.write(f"/etc/tuned/{OURS}-variables.conf", f"{settings}hugepages_boot=auto\n")
    for _ in range(2):
        t.switch(f"{OURS} kernel_settings")
        assert boot_arguments(t, layout, tmp_path).split() == THEIRS.split()
    assert why in t.log()
    assert "${f:" not in t.read("/etc/tuned/bootcmdline")


def test_nothing_is_touched_where_nothing_is_asked(
    tuned: Callable[..., Sandbox], version: str, layout: str
) -> None:
    t = open_sandbox(tuned, version, layout)
    t.write(f"/etc/tuned/{OURS}-variables.conf", "observe=1\nhugepages_boot=auto\n")
    before = {path: t.read(path) for path in (*LAYOUTS[layout].files, "/etc/tuned/bootcmdline")}
    t.switch(OURS)
    t.write(f"/etc/tuned/{OURS}-variables.conf", "hugepages_1G=0:1\n")
    t.switch(OURS)
    t.off()
    assert {path: t.read(path) for path in before} == before


def test_off_takes_them_away_under_systemd(version: str, tmp_path: Path) -> None:
    chosen = LAYOUTS["debian"]
    files = {**FILES, **chosen.files}
    t = SystemdSandbox(version, profiles=PROFILES, files=files, setup=chosen.setup)
    with t:
        t.switch(OURS)
        assert boot_arguments(t, "debian", tmp_path) == PAGES
        t.restart()
        wait_for("applied again", lambda: t.active() == OURS)
        assert boot_arguments(t, "debian", tmp_path) == PAGES
        t.off()
        assert boot_arguments(t, "debian", tmp_path) == tuned_arguments(t) == ""
