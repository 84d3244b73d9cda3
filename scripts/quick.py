# SPDX-License-Identifier: GPL-2.0-or-later
"""Style of what differs from a commit, and the unit tests that it concerns: quick.py BASE [PYTEST…]

A test file is concerned if it imports what has changed, however indirectly; if it names a changed
file that is no Python; or if it reads all sources as text.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = "tests/unit/"
READS_ALL_SOURCES = "rglob("


def changed(base: str) -> list[str]:
    """Files that differ from a commit, those git does not know yet included; not the deleted."""
    told = _output("git", "diff", "--name-only", "--diff-filter=d", base)
    told += _output("git", "ls-files", "--others", "--exclude-standard")
    return sorted(set(told.splitlines()))


def importers(files: Iterable[str], dependents: Mapping[str, Iterable[str]]) -> set[str]:
    """The files themselves and all that import them, however indirectly."""
    found: set[str] = set()
    todo = list(files)
    while todo:
        file = todo.pop()
        if file not in found:
            found.add(file)
            todo += dependents.get(file, ())
    return found


def concerned(
    files: Iterable[str], dependents: Mapping[str, Iterable[str]], tests: Mapping[str, str]
) -> list[str]:
    """Test files, by path with their text, that changed files concern."""
    files = list(files)
    sources = [file for file in files if file.endswith(".py")]
    names = {name for file in files if file not in sources for name in _names(file)}
    reached = importers(sources, dependents)
    if any(file.endswith("conftest.py") for file in sources):
        return sorted(tests)
    return sorted(
        test
        for test, text in tests.items()
        if test in reached
        or (files and READS_ALL_SOURCES in text)
        or any(name in text for name in names)
    )


def _names(file: str) -> tuple[str, str]:
    """How a test names a file: by its name, or by the outermost folder, as a text of its own."""
    top, _, rest = file.partition("/")
    return Path(file).name, f'"{top}' if rest else file


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def _run(*command: str) -> int:
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main(base: str, *options: str) -> int:
    """The exit code: of the first that fails."""
    files = changed(base)
    python = [file for file in files if file.endswith(".py")]
    graph = json.loads(_output("ruff", "analyze", "graph", "--quiet", "--direction", "dependents"))
    tests = {str(file.relative_to(ROOT)): file.read_text() for file in ROOT.glob(f"{TESTS}**/*.py")}
    tests = {file: text for file, text in tests.items() if Path(file).name.startswith("test_")}
    found = concerned(files, graph, tests)
    print(f"{len(files)} files differ from {base}; they concern {len(found)} of {len(tests)} tests")
    style = (
        [("ruff", "check"), ("ruff", "format", "--check"), ("mypy", "--python-version", "3.11")]
        if python
        else []
    )
    codes = [_run(*command, *python) for command in style]
    if found:
        codes.append(_run(sys.executable, "-m", "pytest", "-q", *options, *found))
    return max(codes, default=0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
