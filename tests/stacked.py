# SPDX-License-Identifier: GPL-2.0-or-later
"""Context managers whose parts end together."""

from __future__ import annotations

import contextlib
from types import TracebackType


class Stacked:
    """Its `__enter__` leaves in `_stack` what is to end with the with block."""

    _stack: contextlib.ExitStack

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
