# SPDX-License-Identifier: GPL-2.0-or-later
"""The C library's heap of this process."""

from __future__ import annotations

import contextlib
import ctypes


def trim() -> None:
    """Give free pages back to the kernel (malloc_trim(3), of glibc alone).

    What importing modules and reading XML takes meanwhile leaves more than a MiB of them.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
