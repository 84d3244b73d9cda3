# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk as udev's rules see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuned_virt.kernel.block_device import BlockDevice
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.kernel.udev_rules import TOKEN, Token

FUNCTION = "/sys/devices/pci0000:00/0000:00:05.0"
PATH = f"{FUNCTION}/host1/target1:0:0/1:0:0:0/block/sda"

FILES = {
    f"{PATH}/dev": "8:0\n",
    f"{PATH}/queue/rotational": "1\n",
    f"{PATH}/mq/0/cpu_list": "0\n",
    f"{FUNCTION}/vendor": "0x1000\n",
    f"{FUNCTION}/host1/target1:0:0/1:0:0:0/vendor": "DELL    \n",
    "/run/udev/data/b8:0": "N:sda\nE:ID_VENDOR=DELL\nE:ID_X=a=b\n",
}

HOLDS: dict[str, bool | None] = {
    'ACTION=="add|change"': True,
    'ACTION=="change"': False,
    'ACTION!="remove"': True,
    'KERNEL=="sd[a-z]"': True,
    'KERNEL!="sd*"': False,
    'SUBSYSTEM=="block"': True,
    'DEVPATH=="*/host[0-9]*/*"': True,
    'ENV{DEVTYPE}=="disk"': True,
    'ENV{ID_VENDOR}=="DELL"': True,
    'ENV{ID_X}=="a=b"': True,
    'ENV{ID_BUS}==""': True,
    'ENV{ID_BUS}!="usb"': True,
    'ATTR{queue/rotational}=="1"': True,
    'ATTR{queue/missing}!="1"': False,
    'ATTR{queue/missing}=="1"': False,
    'ATTR{[net/eth0]x}=="1"': None,
    'TEST=="mq/0"': True,
    'TEST!="mq/1"': True,
    'TEST=="%S%p/mq/0"': True,
    'TEST=="/sys$devpath/mq/1"': False,
    'PROGRAM=="/bin/true"': None,
    'TAG=="systemd"': None,
    'ATTR{a\0b}=="1"': False,
    'TEST=="a\0b"': None,
    f'TEST=="/{"x" * 300}"': None,
}

ABOVE: dict[str, bool | None] = {
    'DRIVERS=="megaraid_sas"': True,
    'DRIVERS=="megaraid"': False,
    'DRIVERS=="megaraid_sas", ATTRS{vendor}=="0x1000"': True,
    'DRIVERS=="megaraid_sas", ATTRS{vendor}=="DELL"': False,
    'ATTRS{vendor}=="DELL"': True,
    'KERNELS=="0000:00:05.0", SUBSYSTEMS=="pci"': True,
    'KERNELS=="sda"': True,
    'TAGS=="x"': None,
    'TAGS=="x", KERNELS=="nobody"': False,
}


@pytest.fixture
def fs(tmp_path: Path) -> KernelFS:
    for path, text in FILES.items():
        real = tmp_path / path.lstrip("/")
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_text(text)
    for name, target in (("driver", "megaraid_sas"), ("subsystem", "pci")):
        (tmp_path / FUNCTION.lstrip("/") / name).symlink_to(f"../../bus/x/{target}")
    return KernelFS(tmp_path)


def tokens(text: str) -> list[Token]:
    return TOKEN.findall(text)


def test_what_holds_for_a_disk(fs: KernelFS) -> None:
    device = BlockDevice(fs, PATH, "add")
    for text, expected in HOLDS.items():
        assert device.matches(tokens(text)[0]) is expected, text
    for text, expected in ABOVE.items():
        assert device.matches_above(tokens(text)) is expected, text


def test_what_is_not_known_of_a_disk(fs: KernelFS, tmp_path: Path) -> None:
    """One that udev has not seen yet, and one whose queue does not answer."""
    silent = BlockDevice(fs, PATH, "add", silent=True)
    assert silent.matches(tokens('ATTR{queue/rotational}=="1"')[0]) is None
    (tmp_path / "run/udev/data/b8:0").unlink()
    new = BlockDevice(fs, PATH, "add")
    assert new.matches(tokens('ENV{ID_VENDOR}=="DELL"')[0]) is None
    assert new.matches(tokens('ENV{DEVNAME}=="/dev/sda"')[0]) is True


def test_variables(fs: KernelFS) -> None:
    device = BlockDevice(fs, f"{FUNCTION}/nvme/nvme0/nvme0n12", "add")
    text = "%k $kernel $name %S $sys %r %N $devnode %n $number %% $unknown 5%"
    assert device.substitute(text) == (
        "nvme0n12 nvme0n12 nvme0n12 /sys /sys /dev /dev/nvme0n12 /dev/nvme0n12 12 12 % $unknown 5%"
    )
    disk = BlockDevice(fs, PATH, "add")
    assert disk.substitute("/sys$devpath %p") == f"{PATH} {PATH.removeprefix('/sys')}"
    assert disk.substitute("$env{ID_VENDOR} %E{ID_VENDOR} $attr{dev} %s{no}.") == "DELL DELL 8:0 ."


def test_an_attribute_that_cannot_be_read_may_be_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: str) -> str | None:
        raise KernelFileError("/sys/x", "Input/output error")

    fs = KernelFS(tmp_path)
    monkeypatch.setattr(fs, "read_optional", fails)
    [token] = TOKEN.findall('ATTR{queue/rotational}=="1"')
    assert BlockDevice(fs, PATH, "add").matches(token) is None
