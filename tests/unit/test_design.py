# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/design.md names the threads, the files on disk and the folders that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DESIGN = (ROOT / "docs/design.md").read_text()
PACKAGE = ROOT / "tuned_virt"
CODE = "\n".join(file.read_text() for file in PACKAGE.rglob("*.py"))


def threads() -> set[str]:
    """Names of threads in the code, with what is put into them left out: "virt-…-lane"."""
    found = re.findall(r'f?"(virt-[^"\s]*)"', CODE)
    names = {re.sub(r"\{[^}]*\}", "…", name) for name in found}
    profiles = {file.parent.name for file in ROOT.glob("profiles/*/tuned.conf")}
    return names - profiles - {"virt-handler"}  # KubeVirt's process


def test_every_thread_is_in_the_table() -> None:
    told = {re.sub("PLUGIN|NAME", "…", name) for name in re.findall(r"`(virt-[\w-]+)`", DESIGN)}
    assert threads() == told


def test_every_state_file_is_in_the_table() -> None:
    found = set(re.findall(r'"([\w-]+\.jsonl?)"', CODE))
    found |= {name for name in re.findall(r"/([\w-]+\.jsonl?)\"", CODE)}
    told = set(re.findall(r"^\| /\S+/([\w-]+\.jsonl?)", DESIGN, re.MULTILINE))
    assert found - {"snapshot.json"} == told  # a JSON Schema


def test_every_folder_is_in_the_layout() -> None:
    listed = re.findall(r"^      (\w+/|\w+\.py) ", DESIGN, re.MULTILINE)
    there = {f"{one.name}/" if one.is_dir() else one.name for one in PACKAGE.iterdir()}
    assert set(listed) == {name for name in there if not name.startswith("__")}


def test_the_picture_names_modules_that_there_are() -> None:
    picture = (ROOT / "docs/design.svg").read_text()
    modules = re.findall(r"([a-z_]+/[a-z_/]*(?:\.py)?)(?=[ <])", re.sub(r"xmlns=\S+", "", picture))
    named = [one for one in modules if (one.endswith((".py", "/")))]
    assert named
    assert [one for one in named if not (PACKAGE / one).exists()] == []
