# SPDX-License-Identifier: GPL-2.0-or-later
"""Which unit tests a change concerns, and what `make help` lists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.quick import concerned, importers

MAKEFILE = (Path(__file__).parents[2] / "Makefile").read_text()

PREREQUISITES = {"alone", "lint-ansible", "needs-deb", "needs-rpm", "sitelib", "tools"}
"""Targets that others need, and that nobody asks for."""

DEPENDENTS = {
    "lib/a.py": ["lib/b.py"],
    "lib/b.py": ["tests/unit/test_b.py", "lib/a.py"],
    "lib/c.py": ["tests/unit/test_c.py"],
}
TESTS = {
    "tests/unit/test_b.py": "",
    "tests/unit/test_c.py": "",
    "tests/unit/test_docs.py": '(ROOT / "docs").glob',
    "tests/unit/test_all.py": "PACKAGE.rglob(",
}


def test_importers_of_importers_are_found_also_in_a_circle() -> None:
    assert importers(["lib/a.py"], DEPENDENTS) == {"lib/a.py", "lib/b.py", "tests/unit/test_b.py"}


@pytest.mark.parametrize(
    ("files", "tests"),
    [
        ([], []),
        (["lib/a.py"], ["all", "b"]),
        (["lib/c.py"], ["all", "c"]),
        (["tests/unit/test_c.py"], ["all", "c"]),
        (["docs/new.md"], ["all", "docs"]),
        (["unknown.txt"], ["all"]),
        (["tests/conftest.py"], ["all", "b", "c", "docs"]),
    ],
)
def test_what_a_change_concerns(files: list[str], tests: list[str]) -> None:
    assert concerned(files, DEPENDENTS, TESTS) == [f"tests/unit/test_{name}.py" for name in tests]


def test_help_lists_every_target() -> None:
    targets = set(" ".join(re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)).split())
    lines = re.findall(r"^#   make ([a-z -]+?)(?:  |$)", MAKEFILE, re.MULTILINE)
    listed = " ".join(lines).split()
    assert set(listed) == targets - PREREQUISITES
    assert len(listed) == len(set(listed))
