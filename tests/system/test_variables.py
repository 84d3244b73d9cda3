# SPDX-License-Identifier: GPL-2.0-or-later
"""Our command and TuneD read the same texts alike: variables files, and the kernel's arguments."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest
from tuned import consts
from tuned.profiles.variables import Variables

from tuned_virt.cli import variables
from tuned_virt.tuned_api import import_hook

ROOT = Path(__file__).parents[2]
PROFILES = ("virtual-host-plus", "virtual-guest-plus")

TEXTS = (
    "a=x ; y\nb=x # y\nc=x#y\n d = x \n",
    "a=x\n  y\nb=1\nb=2\n",
    "mode=dedicated\na=${mode}/${nothing}\nb=\\${mode}\nc=${late}\nlate=1\nmode=${mode}x\n",
    "a=\n\n; b=1\n# c=1\n[more]\nd=a=b\n",
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_variables_file_is_read_as_tuned_reads_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "v.conf"
    file.write_text(text)
    known = Variables()
    known.add_from_file(str(file))
    prefix = consts.ENV_PREFIX
    expected = {name[len(prefix) :]: value for name, value in known.get_env().items()}
    assert {one.name: one.value for one in variables.read(file)} == expected


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
    return str(known.expand(lines["cmdline_hugepages"]))
