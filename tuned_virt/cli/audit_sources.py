# SPDX-License-Identifier: GPL-2.0-or-later
"""What the audit is made from: a host, facts of it, and its guests' documents."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

from tuned_virt.audit.scene import AGENT
from tuned_virt.cli import disks
from tuned_virt.cli.collected import AuditSources, GuestDocument
from tuned_virt.core.options import SYSTEM
from tuned_virt.frozen_dataclasses import replace
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import guest_agent, guest_configurations
from tuned_virt.libvirt_api.binding import missing
from tuned_virt.libvirt_api.guest_configurations import GuestConfiguration
from tuned_virt.model import host_facts, topology
from tuned_virt.model.guest import printable, qemu_process
from tuned_virt.model.host_facts import Fact, HostFacts
from tuned_virt.model.topology import Host, HostError

Profiles = Mapping[str, Fact[str]]
"""TuneD's profile inside guests, by UUID."""


def read(fs: KernelFS, uri: str = SYSTEM) -> AuditSources:
    """This host, as it is read, with what guest agents say."""
    return _read(fs, uri, lambda guests: _profiles(guests, uri))


def without_agents(fs: KernelFS, uri: str = SYSTEM) -> AuditSources:
    """This host, as it is read; no guest is asked."""
    return _read(fs, uri, lambda guests: {})


def _read(
    fs: KernelFS, uri: str, profiles: Callable[[Iterable[GuestConfiguration]], Profiles]
) -> AuditSources:
    facts = replace(host_facts.read(fs), backing=disks.backing(fs))
    found = guest_configurations.read(uri)
    if found is None:
        return _without_libvirt(fs, facts)
    host = topology.overlay(Host.from_xml(found.capabilities), fs)
    told = profiles(found.guests)
    documents = tuple(
        GuestDocument(
            one.name, one.xml, "", one.running, one.placed, told.get(one.uuid, Fact[str]())
        )
        for one in found.guests
    )
    return AuditSources(host, facts, documents)


def _profiles(guests: Iterable[GuestConfiguration], uri: str) -> Profiles:
    """What guest agents say, by UUID; only root may ask them."""
    running = [one.uuid for one in guests if one.running and AGENT in one.xml]
    if running and os.geteuid() == 0:
        return guest_agent.profiles(running, uri)
    return dict.fromkeys(running, Fact[str](None, "only root may ask the guest agent"))


def _without_libvirt(fs: KernelFS, facts: HostFacts) -> AuditSources:
    """The host alone; guests that run all the same could not be checked."""
    why = f"libvirt is unavailable ({missing() or 'it does not answer'})"
    running = [one.name for one in qemu_process.QemuProcesses(fs).guests(0.0)]
    unreadable = [(printable(name), f"{why}, so its XML is not known") for name in running]
    try:
        host = topology.read(fs)
    except HostError as error:
        host = None
        unreadable.append(("host", str(error)))
    return AuditSources(host, facts, unreadable=tuple(unreadable), without_guests=why)
