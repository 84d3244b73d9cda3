# SPDX-License-Identifier: GPL-2.0-or-later
"""A command imports what it needs: `--help` and `role` start within 80 ms, `status` within 250.

`make bench` measures that; here only what is imported is tested.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).parents[3]

SLOW = ("dataclasses", "json", "logging", "pathlib", "subprocess", "tempfile", "datetime")
"""Of Python's own modules, those that take milliseconds each."""

LARGE = ("jinja2", "jsonschema", "configobj", "libvirt", "xml")

CODE = """
import os, sys
sys.argv[0] = "tuned-virt"
from tuned_virt import cli
try:
    with open(os.devnull, "w") as sys.stdout:
        cli.main()
except SystemExit:
    pass
print(*sys.modules, file=sys.__stdout__)
"""


def imported(*arguments: str) -> set[str]:
    """The modules that a command has imported when it ends, and the packages that they are in."""
    command = ["/usr/bin/python3", "-s", "-c", CODE, *arguments]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    names = done.stdout.split()
    assert "tuned_virt.cli" in names
    return {*names} | {name.split(".")[0] for name in names}


def test_help_imports_no_command() -> None:
    found = imported("--help")
    ours = {name for name in found if name.startswith("tuned_virt.")}
    assert ours <= {
        "tuned_virt.cli",
        "tuned_virt.cli.common",
        "tuned_virt.kernel",
        "tuned_virt.kernel.errors",
    }
    assert not found & {*SLOW, *LARGE}


def test_role_asks_the_machine_and_imports_no_more() -> None:
    found = imported("role")
    assert not found & {*SLOW, *LARGE} - {"subprocess"}
    assert not [name for name in found if name.startswith(("tuned_virt.core", "tuned_virt.model"))]


@pytest.mark.parametrize("command", ["enable", "disable", "restore"])
def test_what_packages_run_needs_no_other_package(command: str) -> None:
    found = imported(command, "--help")
    assert not found & {"jinja2", "jsonschema", "configobj", "rich", "dbus"}
    assert not [name for name in found if name.startswith("tuned_virt.plugins.")]


def test_status_imports_no_plugin_that_it_does_not_show() -> None:
    found = imported("status")
    plugins = {name.split(".")[2] for name in found if name.startswith("tuned_virt.plugins.")}
    assert plugins == {"ksm"}
    assert not found & {"jinja2", "jsonschema", "configobj"}
