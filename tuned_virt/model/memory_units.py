# SPDX-License-Identifier: GPL-2.0-or-later
"""Amounts of memory as libvirt writes them, in KiB."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element

from tuned_virt.model.xml import ElementError

BYTES = {
    "b": 1,
    "bytes": 1,
    "kb": 1000,
    "k": 1024,
    "kib": 1024,
    "mb": 1000**2,
    "m": 1024**2,
    "mib": 1024**2,
    "gb": 1000**3,
    "g": 1024**3,
    "gib": 1024**3,
    "tb": 1000**4,
    "t": 1024**4,
    "tib": 1024**4,
    "pb": 1000**5,
    "p": 1024**5,
    "pib": 1024**5,
    "eb": 1000**6,
    "e": 1024**6,
    "eib": 1024**6,
}
"""Units of libvirt's scaled integers, without regard to case (virScaleInteger)."""

MOST_KIB = 1 << 44
"""16 PiB: more memory than x86 can address."""


def number(text: str) -> int:
    """A whole number, zero or more, of at most 18 digits. Raises ValueError."""
    if not re.fullmatch(r"\d{1,18}", text.strip(), re.ASCII):
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        raise ValueError(f"'{shown}' is not a whole number from 0")
    return int(text)


def kib(element: Element, text: str, unit: str) -> int:
    """An amount in KiB, rounded up; the element is named where it is none. Raises ElementError."""
    if unit.lower() not in BYTES:
        raise ElementError(element, f"<{element.tag}>: unit '{unit[:40]}' is unknown")
    try:
        amount = -(-number(text) * BYTES[unit.lower()] // 1024)
    except ValueError as error:
        raise ElementError(element, f"<{element.tag}>: {error}") from error
    if amount > MOST_KIB:
        raise ElementError(element, f"<{element.tag}>: {text} {unit} is more than 16 PiB")
    return amount


def element_kib(element: Element) -> int:
    """The amount in an element's text, by its unit (KiB where it has none). Raises ElementError."""
    return kib(element, element.text or "", element.get("unit", "KiB"))
