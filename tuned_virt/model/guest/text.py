# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests as others describe them."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text of others without what would start a line or steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
