# SPDX-License-Identifier: GPL-2.0-or-later
"""The base of errors whose text is for users."""

from __future__ import annotations


class PlainError(Exception):
    """Its text says what is so: the command prints it and ends with exit code 2."""
