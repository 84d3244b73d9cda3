# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands, variables and links in the documentation are real."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.documents import DOCUMENTS, Command, commands
from tuned_virt import cli
from tuned_virt.registry import tuners

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", [c for c in commands() if c.program == "tuned-virt"], ids=str)
def test_the_parser_takes_every_tuned_virt_command(command: Command) -> None:
    text = command.text.replace("…", "").partition(" #")[0]
    try:
        cli.parser().parse_args(shlex.split(text)[1:])
    except SystemExit as error:
        assert error.code == 0, f"{command.file.name}: {command.text}"


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_links_lead_somewhere(file: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text()):
        assert (file.parent / target).exists(), target


def test_settings_in_examples_exist() -> None:
    """NAME=VALUE lines of code blocks are variables of a profile or options of a plugin."""
    known = {name for tuner in tuners().values() for name in tuner.options}
    known |= {"summary", "include", "priority", "type", "devices", "files", "ps_blacklist"}
    known |= {"Environment", "ReadWritePaths", "IPAddressAllow"}  # of a unit
    for file in ROOT.glob("profiles/*/defaults.conf"):
        known |= set(re.findall(r"^(\w+)=", file.read_text(), re.MULTILINE))
    for file in DOCUMENTS:
        found = re.findall(r"^    (\w+)=\S*(?:\s+#.*)?$", file.read_text(), re.MULTILINE)
        assert set(found) <= known, file.name


def test_each_threat_names_a_test_that_there_is() -> None:
    text = (ROOT / "docs/security.md").read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| (a|anybody|`tuned -d`)", line)]
    assert len(rows) > 8
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", row.rpartition(" | ")[2])
        assert named, row
        for file, test in named:
            source = (ROOT / "tests/unit" / file).read_text()
            assert not test or f"def {test}(" in source, (file, test)
