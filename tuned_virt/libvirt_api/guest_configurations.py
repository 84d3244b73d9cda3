# SPDX-License-Identifier: GPL-2.0-or-later
"""All guests of a libvirt as they will start next: their persistent configurations."""

from __future__ import annotations

import contextlib

from tuned_virt.core.options import SYSTEM
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.libvirt_api import binding, placement_tag
from tuned_virt.libvirt_api.connection import Connection, Domain
from tuned_virt.libvirt_api.errors import LibvirtError
from tuned_virt.libvirt_api.own_elements import NotXML
from tuned_virt.libvirt_api.worker import GuestsView, ask_once


@dataclass(frozen=True)
class GuestConfiguration:
    """A guest's configuration; of a transient one, which has none, the XML of this run.

    placed   it runs where vm_pinning has put it: its XML has our tag
    """

    name: str
    xml: str
    running: bool
    placed: bool = False
    uuid: str = ""


@dataclass(frozen=True)
class Configurations:
    """The host's capabilities, and the guests by name."""

    capabilities: str
    guests: tuple[GuestConfiguration, ...]


def read(uri: str = SYSTEM) -> Configurations | None:
    """None if libvirt does not tell."""
    return ask_once(_read, uri, defined=True)


def stopped(uri: str = SYSTEM) -> frozenset[str]:
    """Names and UUIDs of guests that are defined and do not run; none if libvirt does not tell."""
    return ask_once(_stopped, uri, defined=True) or frozenset()


def _stopped(view: GuestsView) -> frozenset[str]:
    idle = [one for one in view.defined.values() if not one.running]
    return frozenset(text for one in idle for text in (one.name, one.uuid))


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
    placed = one.running and _placed(one.xml)
    return GuestConfiguration(one.name, xml, one.running, placed, one.uuid)


def _placed(xml: str) -> bool:
    try:
        return bool(placement_tag.read(xml)[0])
    except NotXML:
        return False
