# SPDX-License-Identifier: GPL-2.0-or-later
"""What is audited: this host and all guests that libvirt defines, or what files say."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tuned_virt.audit.scene import AuditedGuest, Scene
from tuned_virt.cli import disks, planning_input, snapshot
from tuned_virt.cli.common import CouldNot
from tuned_virt.core.options import SYSTEM
from tuned_virt.frozen_dataclasses import dataclass, replace
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import guest_agent, guest_configurations
from tuned_virt.libvirt_api.binding import missing
from tuned_virt.model import host_facts
from tuned_virt.model.guest import GuestError, domain_type, printable, qemu_process, read_whole
from tuned_virt.model.host_facts import Fact
from tuned_virt.model.topology import Host, HostError, overlay, read

KVM = ("kvm", "qemu")
"""Types of domains that are audited."""


@dataclass(frozen=True)
class AuditInput:
    """A scene, what is in it of other hypervisors, and what could not be read.

    others      guest or file → why it is not audited: it is no KVM guest
    unreadable  guest, file or this host → why it could not be read
    """

    scene: Scene
    others: tuple[tuple[str, str], ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class GuestDocument:
    """A guest's XML, and where it comes from: a file, or this host's libvirt."""

    name: str
    xml: str
    file: str = ""
    running: bool = True
    placed: bool = False


def gather(capabilities: str | None, files: list[str], saved: str | None) -> AuditInput:
    """Files where any are given, else this host. Raises CouldNot."""
    if saved:
        if capabilities or files:
            raise CouldNot("--snapshot has the host and its guests: do not give --host and --guest")
        known = snapshot.load(Path(saved))
        found = [
            GuestDocument(guest.name, one.xml, saved, placed=one.held is not None)
            for guest, one in zip(known.guests, known.described)
        ]
        return of(Scene(known.host), found, known.notes)
    if not capabilities and not files:
        return here(KernelFS())
    host = None if capabilities is None else planning_input.host_of(capabilities)
    documents, unreadable = [], []
    for name in files:
        try:
            documents.append(GuestDocument(name, planning_input.text_of(Path(name)), name))
        except CouldNot as error:
            unreadable.append((name, str(error)))
    return of(Scene(host), documents, unreadable=unreadable)


def here(fs: KernelFS, uri: str = SYSTEM) -> AuditInput:
    """This host and its guests, with what guest agents say."""
    return _asked(without_agents(fs, uri), uri)


def without_agents(fs: KernelFS, uri: str = SYSTEM) -> AuditInput:
    """This host: the configuration of each guest, and the XML of those that have none."""
    facts = replace(host_facts.read(fs), backing=disks.backing(fs))
    found = guest_configurations.read(uri)
    if found is None:
        return _without_libvirt(fs, facts)
    host = overlay(Host.from_xml(found.capabilities), fs)
    documents = [
        GuestDocument(one.name, one.xml, running=one.running, placed=one.placed)
        for one in found.guests
    ]
    return of(Scene(host, facts), documents)


def _asked(gathered: AuditInput, uri: str) -> AuditInput:
    """With what guest agents say; only root may ask them."""
    scene = gathered.scene
    running = [one.guest.uuid for one in scene.guests if one.running and one.has_agent]
    if not running:
        return gathered
    if os.geteuid() == 0:
        told = guest_agent.profiles(running, uri)
    else:
        told = dict.fromkeys(running, Fact[str](None, "only root may ask the guest agent"))
    guests = tuple(
        replace(one, profile=told.get(one.guest.uuid, one.profile)) for one in scene.guests
    )
    return replace(gathered, scene=replace(scene, guests=guests))


def _without_libvirt(fs: KernelFS, facts: host_facts.HostFacts) -> AuditInput:
    """The host alone; guests that run all the same could not be checked."""
    why = f"libvirt is unavailable ({missing() or 'it does not answer'})"
    running = [one.name for one in qemu_process.QemuProcesses(fs).guests(0.0)]
    unreadable = [(printable(name), f"{why}, so its XML is not known") for name in running]
    try:
        host = read(fs)
    except HostError as error:
        host = None
        unreadable.append(("host", str(error)))
    return AuditInput(Scene(host, facts, without_guests=why), unreadable=tuple(unreadable))


def of(
    scene: Scene,
    documents: Iterable[GuestDocument],
    notes: tuple[str, ...] = (),
    unreadable: Iterable[tuple[str, str]] = (),
) -> AuditInput:
    """A scene with its guests, as far as their documents can be read."""
    guests: list[AuditedGuest] = []
    others: list[tuple[str, str]] = []
    bad = list(unreadable)
    for one in documents:
        try:
            kind = domain_type(one.xml)
            if kind in KVM:
                guests.append(_audited(one))
            else:
                others.append((printable(one.name), _other(kind)))
        except GuestError as error:
            bad.append((printable(one.name), printable(str(error))))
    whole = Scene(scene.host, scene.facts, tuple(guests))
    return AuditInput(whole, tuple(others), tuple(bad), notes)


def _audited(one: GuestDocument) -> AuditedGuest:
    return AuditedGuest(*read_whole(one.xml), one.file, one.running, one.placed)


def _other(kind: str) -> str:
    named = f"its type is {printable(kind[:40])}" if kind else "it has no type"
    return f"it is not a KVM guest ({named})"


def subjects(gathered: AuditInput) -> Iterator[str]:
    """What was checked, in a few words."""
    scene = gathered.scene
    if scene.host is not None:
        nodes, cpus = len(scene.host.nodes), len(scene.host.cpus)
        yield f"a host with {cpus} CPUs in {nodes} NUMA node{'s' if nodes > 1 else ''}"
    yield f"{len(scene.guests)} guest{'' if len(scene.guests) == 1 else 's'}"
