# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers and CPU sets of libvirt's XML. What is wrong is raised as ElementError."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from tuned_virt.kernel import cpuset
from tuned_virt.model import memory_units
from tuned_virt.model.xml import ElementError


def number(element: Element) -> int:
    """The whole number in an element's text."""
    try:
        return memory_units.number(element.text or "")
    except ValueError as error:
        raise ElementError(element, f"<{element.tag}>: {error}") from error


def attribute(element: Element, name: str, default: int | None = None) -> int:
    """The whole number in an attribute; one without a default must be there."""
    text = element.get(name)
    if text is None and default is not None:
        return default
    try:
        return memory_units.number(text or "")
    except ValueError as error:
        raise ElementError(element, f"<{element.tag} {name}>: {error}") from error


def cpu_set(element: Element, name: str, excluding: bool = True) -> frozenset[int]:
    """The CPUs or nodes in an attribute; `excluding`: "0-3,^2" is understood."""
    try:
        return (cpuset.parse_excluding if excluding else cpuset.parse)(element.get(name, ""))
    except ValueError as error:
        raise ElementError(element, f"<{element.tag} {name}>: {error}") from error


def cpu_set_text(element: Element) -> frozenset[int]:
    """The CPUs or nodes in an element's text ("0-3,^2")."""
    try:
        return cpuset.parse_excluding((element.text or "").strip())
    except ValueError as error:
        raise ElementError(element, f"<{element.tag}>: {error}") from error
