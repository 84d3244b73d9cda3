# SPDX-License-Identifier: GPL-2.0-or-later
"""Put the licence's SPDX line at the top of every source file that lacks it; say which."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(SOURCE))

from scripts import release  # noqa: E402

LINE = "# SPDX-License-Identifier: GPL-2.0-or-later\n"
SUFFIXES = (".py", ".sh", ".bash", ".conf", ".service", ".timer", ".toml", ".spec", ".ks")
OTHERS = ("Makefile", ".ci/run", "debian/rules")


def lacking() -> Iterator[Path]:
    """Source files without the line: programs, and configuration that we have written."""
    for name in release.files():
        file = SOURCE / name
        program = name.startswith(("scripts/", "hooks/")) and not file.suffix
        if (file.suffix in SUFFIXES or name in OTHERS or program) and LINE not in head(file):
            yield file


def head(file: Path) -> str:
    """The first lines of a file."""
    return "".join(file.read_text().splitlines(keepends=True)[:3])


def main() -> int:
    """Write; a program's first line stays the first."""
    for file in lacking():
        lines = file.read_text().splitlines(keepends=True)
        lines.insert(1 if lines and lines[0].startswith("#!") else 0, LINE)
        file.write_text("".join(lines))
        print(file.relative_to(SOURCE))
    return 0


if __name__ == "__main__":
    sys.exit(main())
