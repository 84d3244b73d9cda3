# SPDX-License-Identifier: GPL-2.0-or-later
"""Every recipe of docs/recipes.md, applied over real stock profiles: what it asks for holds, and
nothing that it includes contradicts it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from tests.sandbox import REPO, Sandbox

VERSIONS = ("2.20", "2.25")
VARIABLES = {
    "virtual-host-plus": "/etc/tuned/virtual-host-plus-variables.conf",
    "virtual-guest-plus": "/etc/tuned/virtual-guest-plus-variables.conf",
}

REAL_TIME = "Guest with real-time vCPUs"
NOT_HERE = (
    r"'hugepages_numa pages_1G node0' = '\d', expected '4' \(4 pages of 1G requested, \d got\)",
    r"'net\.core\.busy_(read|poll)' = 'None'",
    r"plugin_(bootloader|scheduler|script): ",
)
"""What this machine, and a sandbox without boot loader, cannot have of the real-time recipe."""


def recipes() -> Iterator[tuple[str, str, str]]:
    """Title, profile and text of each block that is a profile or settings."""
    for section in (REPO / "docs/recipes.md").read_text().split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        for block in re.finditer(r"(?:^(?:    .*|)\n)+", text, re.MULTILINE):
            lines = [line[4:] for line in block[0].splitlines() if line.strip()]
            if lines and lines[0] == "[main]":
                yield title, "recipe", "\n".join(lines) + "\n"
            elif lines and all(re.match(r"\w+=", line) for line in lines[:1]):
                guest = "virtual-guest-plus-variables.conf" in text[: block.start()]
                settings = [line for line in lines if re.match(r"\w+=", line)]
                role = "virtual-guest-plus" if guest else "virtual-host-plus"
                yield title, role, "\n".join(settings) + "\n"


def test_there_are_recipes() -> None:
    found = [*recipes()]
    assert len(found) >= 7
    assert {role for _, role, _ in found} == {"recipe", *VARIABLES}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("title", "role", "text"), [*recipes()])
def test_a_recipe_holds(
    tuned: Callable[..., Sandbox], version: str, title: str, role: str, text: str
) -> None:
    profiles = {"recipe": text} if role == "recipe" else {}
    t = tuned(version, profiles=profiles)
    before = t.snapshot()
    if role in VARIABLES:
        t.write(VARIABLES[role], text)
    t.switch(role)
    t.verify()
    assert "only one can hold" not in t.verify_lines
    failed = [line for line in t.verify_lines.splitlines() if "verify: failed" in line]
    allowed = NOT_HERE if title == REAL_TIME else ()
    assert [line for line in failed if not any(re.search(one, line) for one in allowed)] == []
    if title == REAL_TIME:
        assert "verify: passed: '/sys/kernel/mm/ksm/run' = '2'" in t.verify_lines
        assert "verify: passed: 'ksm run' = '2'" in t.verify_lines
    t.off()
    left = {path: value for path, value in t.snapshot().items() if before.get(path) != value}
    assert {path for path in left if "/ksm/" in path or "hugepage" in path} == set()
