# SPDX-License-Identifier: GPL-2.0-or-later
"""What is audited: this host and all guests that libvirt defines, or what files say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tuned_virt.audit.scene import AuditedGuest, Scene
from tuned_virt.cli import audit_sources, planning_input, snapshot_file
from tuned_virt.cli.collected import AuditSources, GuestDocument
from tuned_virt.cli.common import CouldNot
from tuned_virt.core.options import SYSTEM
from tuned_virt.frozen_dataclasses import dataclass, replace
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.guest import GuestError, domain_type, printable, read_whole

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


def gather(capabilities: str | None, files: list[str], saved: str | None) -> AuditInput:
    """Files where any are given, else this host. Raises CouldNot."""
    if saved:
        if capabilities or files:
            raise CouldNot("--snapshot has the host and its guests: do not give --host and --guest")
        return audited(snapshot_file.load(saved).audit())
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
    return audited(audit_sources.read(fs, uri))


def without_agents(fs: KernelFS, uri: str = SYSTEM) -> AuditInput:
    """This host: the configuration of each guest, and the XML of those that have none."""
    return audited(audit_sources.without_agents(fs, uri))


def audited(found: AuditSources) -> AuditInput:
    """A scene with its guests, as far as their documents can be read."""
    scene = Scene(found.host, found.facts, without_guests=found.without_guests)
    return of(scene, found.documents, found.notes, found.unreadable)


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
    whole = replace(scene, guests=tuple(guests))
    return AuditInput(whole, tuple(others), tuple(bad), notes)


def _audited(one: GuestDocument) -> AuditedGuest:
    return AuditedGuest(*read_whole(one.xml), one.file, one.running, one.placed, one.profile)


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
