# SPDX-License-Identifier: GPL-2.0-or-later
"""The manuals say what the code says: commands, options, hints, variables."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from scripts import manuals
from tuned_virt import cli
from tuned_virt.core import settings
from tuned_virt.registry import tuners

pytest.importorskip("tuned", reason="a plugin's module needs TuneD to be imported")


@pytest.fixture(scope="module")
def pages() -> Mapping[str, manuals.Page]:
    found = list(manuals.pages())
    by_file = {page.file: page for page in found}
    assert len(by_file) == len(found), "two pages of one name"
    return by_file


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_a_page_with_every_option(
    command: str, pages: Mapping[str, manuals.Page]
) -> None:
    page = pages[f"tuned-virt-{command}.1"]
    text = page.markdown()
    for action in manuals.shown(manuals.subparsers()[command]):
        assert manuals.term(action) in text
    assert f"**tuned-virt-{command}(1)**" in pages["tuned-virt.1"].parts["COMMANDS"]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_is_described_by_people_with_an_example(command: str) -> None:
    page = manuals.written(f"tuned-virt-{command}.1")
    assert page, f"write docs/tuned-virt-{command}.1.md"
    assert f"tuned-virt {command}" in page.parts["EXAMPLES"]


@pytest.mark.parametrize("plugin", [file.stem[len("plugin_") :] for file in manuals.PLUGINS])
def test_every_plugin_has_a_page_with_every_option_and_its_hint(
    plugin: str, pages: Mapping[str, manuals.Page]
) -> None:
    page = pages[f"tuned-plugin-{plugin}.7"]
    if plugin in tuners():
        for name, option in tuners()[plugin].options.items():
            assert f"**{name}**" in page.parts["OPTIONS"]
            assert manuals.escaped(option.hint) in page.parts["OPTIONS"]
    assert page.parts["OPTIONS"]
    assert re.fullmatch(rf"tuned-plugin-{plugin} - .{{15,}}", page.parts["NAME"])


def test_every_variable_is_on_its_page(pages: Mapping[str, manuals.Page]) -> None:
    for file in manuals.SOURCE.glob("profiles/*-variables.conf"):
        text = pages[f"{file.name}.5"].parts["VARIABLES"]
        names = re.findall(r"^#([\w.]+)=", file.read_text(), re.MULTILINE)
        assert names
        assert [name for name in names if f"**{name}**=" not in text] == []


def test_settings_that_the_file_does_not_show_are_on_its_page(
    pages: Mapping[str, manuals.Page],
) -> None:
    for file in manuals.SOURCE.glob("profiles/*-variables.conf"):
        profile = file.name[: -len("-variables.conf")]
        known = settings.read(str(file.parent / profile / "defaults.conf")).settings.keys()
        shown = re.findall(r"^#([\w.]+)=", file.read_text(), re.MULTILINE)
        rare = re.findall(
            r"^\*\*([\w.]+)\*\*=.*\n: .{15,}$", pages[f"{file.name}.5"].parts["RARELY NEEDED"], re.M
        )
        assert {*rare, *shown} == known
        assert not {*rare} & {*shown}
        assert {"hugepages_remedies", "hugepages_timeout"} <= {*rare}


def test_pages_refer_to_pages_that_are_there(pages: Mapping[str, manuals.Page]) -> None:
    known = {f"{page.name}({page.section})" for page in pages.values()}
    for page in pages.values():
        ours = re.findall(r"\b((?:tuned-virt|tuned-plugin|virtual-)[\w.-]*\(\d\))", page.markdown())
        assert set(ours) <= known, page.file


def test_wide_tables_become_lists() -> None:
    narrow = "| a | b |\n|---|---|\n| 1 | 2 |\n"
    assert manuals.plain(narrow) == narrow
    wide = f"| a | b | c |\n|---|---|---|\n| one | {'x' * 80} | y |\n"
    assert manuals.plain(wide) == f"one\n: b: {'x' * 80}. c: y\n"
