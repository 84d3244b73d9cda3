# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/trouble.md: what it explains is what the code says."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]

VALUES = r"[\w.-]*[_./=\[\]-][\w./=\[\]-]*|[…'()\d:;,]"
"""Values (words with a sign in them, numbers), or what surrounds them."""

ENOUGH = 9
"""Letters of a piece between values that must be found."""


def lines() -> list[str]:
    text = (REPO / "docs/trouble.md").read_text()
    return re.findall(r"^\| `([^|]+)` \|", text, re.MULTILINE)


@functools.lru_cache(maxsize=1)
def said() -> str:
    """All texts in the code, without their placeholders."""
    trees = (ast.parse(file.read_text()) for file in (REPO / "tuned_virt").rglob("*.py"))
    found = (
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return "\n".join(found)


def test_there_are_lines() -> None:
    assert len(lines()) > 40


@pytest.mark.parametrize("line", lines())
def test_each_line_is_one_that_the_code_says(line: str) -> None:
    pieces = [piece.strip() for piece in re.split(VALUES, line)]
    told = [piece for piece in pieces if len(piece) >= ENOUGH]
    assert told
    assert [piece for piece in told if piece not in said()] == []
