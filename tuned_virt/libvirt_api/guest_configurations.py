# SPDX-License-Identifier: GPL-2.0-or-later
"""All guests of a libvirt as they will start next: their persistent configurations."""

from __future__ import annotations

import contextlib

from tuned_virt.core.options import SYSTEM
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.connection import Connection, Domain
from tuned_virt.libvirt_api.errors import LibvirtError
from tuned_virt.libvirt_api.worker import GuestsView, ask_once


@dataclass(frozen=True)
class GuestConfiguration:
    """A guest's configuration; of a transient one, which has none, the XML of this run."""

    name: str
    xml: str
    running: bool


@dataclass(frozen=True)
class Configurations:
    """The host's capabilities, and the guests by name."""

    capabilities: str
    guests: tuple[GuestConfiguration, ...]


def read(uri: str = SYSTEM) -> Configurations | None:
    """None if libvirt does not tell."""
    return ask_once(_read, uri, defined=True)


def _read(view: GuestsView) -> Configurations:
    known = sorted(view.defined.values(), key=lambda one: one.name)
    found = (_configuration(view.connection, one) for one in known)
    return Configurations(view.connection.capabilities(), tuple(found))


def _configuration(connection: Connection, one: Domain) -> GuestConfiguration:
    """One that is undefined meanwhile is as it was listed."""
    xml = one.xml
    with contextlib.suppress(LibvirtError), connection.asking():
        if one.running and one.domain.isPersistent():
            xml = one.domain.XMLDesc(binding.libvirt().VIR_DOMAIN_XML_INACTIVE)
    return GuestConfiguration(one.name, xml, one.running)
