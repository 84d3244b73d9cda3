# SPDX-License-Identifier: GPL-2.0-or-later
"""We and TuneD read the same texts alike: settings files, and the kernel's arguments."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest
from tuned import consts
from tuned.profiles.variables import Variables

from tuned_virt.core import settings
from tuned_virt.tuned_api import import_hook

ROOT = Path(__file__).parents[2]
PROFILES = ("virtual-host-plus", "virtual-guest-plus")

TEXTS = (
    "a=x ; y\nb=x # y\nc=x#y\nd = x \n",
    "mode=dedicated\na=${mode}/${nothing}\nb=\\${mode}\nc=${late}\nlate=1\nm=${mode}x\n",
    "a=\n\n; b=1\n# c=1\n[variables]\nd=a=b\n",
    "  a=1\n b=2\n\n# c\nc=3\r\n; d=1\n[variables]\n   e=2\n",
)

OTHERWISE = (
    "a=x\n  y\n",
    "a=x\n\n\n  b=y\n",
    "a=1\na=2\n",
    "a: 1\n",
    "export a=1\n",
    "a-b=1\n",
    "a\n",
    "\ufeffa=1\n",
    "[DEFAULT]\na=1\n[variables]\na=2\n",
)
"""What an administrator reads otherwise than TuneD."""


@pytest.mark.parametrize("text", TEXTS)
def test_a_variables_file_is_read_as_tuned_reads_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "v.conf"
    file.write_text(text)
    read = settings.read(str(file))
    assert read.errors == ()
    assert {name: one.value for name, one in read.settings.items()} == tuneds(file)


@pytest.mark.parametrize("text", OTHERWISE)
def test_what_tuned_reads_otherwise_is_an_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "v.conf"
    file.write_text(text)
    assert settings.read(str(file)).errors


def tuneds(file: Path) -> dict[str, str]:
    """What TuneD reads."""
    known = Variables()
    known.add_from_file(str(file))
    prefix = consts.ENV_PREFIX
    return {name[len(prefix) :]: value for name, value in known.get_env().items()}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("asked", "arguments"),
    [
        ("0:1", "hugepagesz=1G hugepages=0:1"),
        ("all:1", "hugepagesz=1G hugepages="),
        ("", ""),
        ("0:4x", ""),
        ("0:4 ; four", ""),
        ("0:1,9:4", ""),
        ("${nothing}", ""),
        ("${f:exec:echo:0}", ""),
    ],
)
def test_what_tuned_puts_on_the_kernels_command_line(
    tmp_path: Path, profile: str, asked: str, arguments: str
) -> None:
    """The loader's file parses however often TuneD writes it, whatever was asked."""
    file = tmp_path / "v.conf"
    file.write_text(f"hugepages_1G={asked}\nhugepages_boot=auto\n")
    text = expanded(profile, file)
    assert text.startswith(arguments)
    assert bool(text) is bool(arguments)
    assert not set(text) & set("\n${}\"'")
    script = tmp_path / "grub.cfg"
    script.write_text(f'set tuned_params="{text}"\nmenuentry x {{\n linux /x $tuned_params\n}}\n')
    checker = shutil.which("grub-script-check") or "grub2-script-check"
    subprocess.run([checker, str(script)], check=True)


def expanded(profile: str, file: Path) -> str:
    """The profile's own line as TuneD expands it, with this checkout's function."""
    import_hook.install()
    lines: dict[str, str] = {}
    for name, section in ((profile, "variables"), ("virt-plus-boot", "bootloader")):
        parser = configparser.ConfigParser(delimiters=("=",), strict=False, interpolation=None)
        parser.read(ROOT / "profiles" / name / "tuned.conf")
        lines.update(parser[section])
    assert lines["boot_policy"] == f"/etc/tuned/{profile}-variables.conf"
    known = Variables()
    known.add_variable("boot_policy", str(file))
    return str(known.expand(lines["cmdline_virt_plus_boot"]))
