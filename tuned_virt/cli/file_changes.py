# SPDX-License-Identifier: GPL-2.0-or-later
"""Several files that are replaced together, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from tuned_virt.cli.variables import replace_file


def differing(files: Mapping[Path, str]) -> dict[Path, str]:
    """Those whose text is not so already. Raises OSError."""
    texts = {file: _bytes(file) for file in files}
    return {file: text for file, text in files.items() if texts[file] != text.encode()}


@contextlib.contextmanager
def all_or_nothing(files: Mapping[Path, str]) -> Iterator[None]:
    """Replace the files; where one cannot be, or the with block fails, all are as they were.

    Raises OSError.
    """
    before = {file: _bytes(file) for file in files}
    try:
        for file, text in files.items():
            replace_file(file, text)
        yield
    except BaseException:
        for file, content in before.items():
            with contextlib.suppress(OSError):
                _put_back(file, content)
        raise


def _bytes(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def _put_back(file: Path, content: bytes | None) -> None:
    if content is None:
        file.unlink(missing_ok=True)
    elif _bytes(file) != content:
        file.write_bytes(content)
