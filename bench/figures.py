# SPDX-License-Identifier: GPL-2.0-or-later
"""What several benches do alike: figures in words, and the kernel's files put back."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from tuned_virt.kernel.files import active_word


def spread(values: Sequence[float]) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


@contextlib.contextmanager
def put_back(file: Path) -> Iterator[None]:
    """A file of the kernel as it was before, also one of which a word is selected."""
    before = active_word(file.read_text().strip())
    try:
        yield
    finally:
        file.write_text(before)
