# SPDX-License-Identifier: GPL-2.0-or-later
"""What users read is plain technical English: words and phrases that are not used in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

NOT_USED = (
    r"asked for",
    r"baseline(?!\.json)",
    r"behind a wall|no wall|wall",
    r"begins? it anew|starts? anew|nodes anew|over anew",
    r"by itself, by TuneD|goes on by itself|gone by itself",
    r"given up half-way",
    r"hands[ -]off|hands on|its hands",
    r"hypervisor",
    r"is no (?:number|whole|mask|placement|guest|KVM|NAME|UTF|Unicode)",
    r"is there already",
    r"keeper|steward|masters?|seats?|roster|the board",
    r"ksmtuned's law|the same law",
    r"left alone",
    r"look again and again|seconds between its looks|since the last look",
    r"nobody (?:holds|wants|else's)",
    r"not to be had|to be had",
    r"not to be seen|to be seen",
    r"out of its way|torn (?:apart|from)",
    r"pages each \d+ ms|pages a batch",
    r"put off",
    r"somebody (?:else|has)",
    r"the way back",
    r"wants? (?:it|them) any more",
    r"whatever else",
    r"what is there is|it is there by",
)
"""Words of our own for what has a name, and phrases that no native speaker writes."""

PATTERN = re.compile(rf"(?<![\w/.-])(?:{'|'.join(NOT_USED)})(?![\w-])", re.IGNORECASE)

DOCUMENTS = (
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("profiles/**/*.conf")),
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
)
WRITTEN_BEFORE = {"hands off"}
"""Words in state files of earlier versions, which are read."""

MODULES = sorted(ROOT.glob("tuned_virt/**/*.py"))
PLUGINS = sorted(ROOT.glob("tuned_plugins/*.py"))


def literals(file: Path) -> Iterator[str]:
    """A module's texts but for its docstrings, adjacent literals joined."""
    tree = ast.parse(file.read_text())
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in statements:
            yield str(node.value)


def found(text: str) -> list[str]:
    """Words in a text that are not used, over its line breaks (and a comment's #)."""
    return [match[0] for match in PATTERN.finditer(re.sub(r"\s*\n#?\s*", " ", text))]


def test_plain_words() -> None:
    read = [(file, text) for file in MODULES for text in literals(file)]
    read += [(file, file.read_text()) for file in (*PLUGINS, *DOCUMENTS)]
    texts = ((file.relative_to(ROOT), text) for file, text in read if text not in WRITTEN_BEFORE)
    assert [(str(file), words) for file, text in texts for words in found(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "libvirt is not to be had: why",
        "no one\n# wants\n# it any more",
        "two masters",
        "Left alone",
    ],
)
def test_what_is_not_used_is_found(text: str) -> None:
    assert found(text)
