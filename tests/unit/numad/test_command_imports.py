# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt waits for numad while it starts a guest: it imports what an answer needs, and no more.

`make bench-numad` measures how long it takes; here only what is imported is tested.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).parents[3]

SLOW = {"dataclasses", "inspect", "logging", "pathlib", "subprocess", "tempfile"}
LARGE = {"xml", "defusedxml", "libvirt", "dbus", "tuned"}
OURS = 24
"""Modules of tuned_virt, packages among them: each takes a tenth of a millisecond at least."""

CODE = """
import io, json, sys
compiled = []

def hook(event, what):
    if event == "compile" and what[1] == "<string>":
        compiled.append(str(what[0]))
sys.addaudithook(hook)
from tuned_virt.kernel.files import KernelFS
from tuned_virt.numad import command
sys.stdout = io.StringIO()
command.run(["-w", "4:512"], KernelFS(), sys.argv[1], 1.0)
print(json.dumps([[*sys.modules], compiled]), file=sys.__stdout__)
"""


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], list[str]]:
    """The modules that an answer has imported, and the text, no file's, that it compiled."""
    command = ["/usr/bin/python3", "-s", "-S", "-c", CODE, str(tmp_path_factory.mktemp("own"))]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    modules, compiled = json.loads(done.stdout)
    return set(modules), compiled


def test_it_imports_no_more(answer: tuple[set[str], list[str]]) -> None:
    modules, _ = answer
    assert not modules & {*SLOW, *LARGE}
    ours = {name for name in modules if name.partition(".")[0] == "tuned_virt"}
    assert "tuned_virt.numad.command" in ours
    assert len(ours) <= OURS, sorted(ours)


def test_no_annotation_is_compiled(answer: tuple[set[str], list[str]]) -> None:
    """namedtuple makes a function for each class; typing would compile each field's annotation."""
    _, compiled = answer
    assert compiled
    assert [text for text in compiled if "lambda _cls" not in text] == []
