# SPDX-License-Identifier: GPL-2.0-or-later
"""What is planned with: a host, its guests, and where those are now; from files or from here."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from tuned_virt.cli import processes
from tuned_virt.cli.common import CouldNot
from tuned_virt.core.options import SYSTEM
from tuned_virt.frozen_dataclasses import dataclass, field, replace
from tuned_virt.guests import originals
from tuned_virt.kernel import numa_maps
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.kernel.procfs import start_time
from tuned_virt.libvirt_api import placement_tag
from tuned_virt.libvirt_api.worker import descriptions
from tuned_virt.model.guest import Guest, GuestError, printable, qemu_threads, read_guest
from tuned_virt.model.pins import Pins
from tuned_virt.model.topology import Host, HostError, overlay, read
from tuned_virt.model.xml import MOST_CHARACTERS
from tuned_virt.placement import MemoryPlacement, Placement, PlacementKind
from tuned_virt.plugins.vm_pinning import held_placements

MOST_GUESTS = 4096
"""Of one host; libvirt itself lists at most 16,384 domains, no host runs so many."""

NOT_ROOT = (
    "without root, guest memory locations are unknown; the plan assumes that none is allocated"
)


@dataclass(frozen=True)
class DescribedGuest:
    """A guest as it is gathered.

    xml       its document
    now       where its threads may run, and its <numatune>; None for one that does not run
    resident  node → KiB of its memory there, empty where that is not known
    held      where vm_pinning has put it
    """

    xml: str
    now: Pins | None = None
    resident: Mapping[int, int] = field(default_factory=dict)
    held: Placement | None = None


@dataclass(frozen=True)
class PlanningInput:
    """A host and its guests; by a guest's key, where it is now if it runs, and where it is held.

    notes  what could not be read
    """

    host: Host
    described: tuple[DescribedGuest, ...]
    guests: tuple[Guest, ...]
    notes: tuple[str, ...] = ()

    @property
    def now(self) -> Mapping[str, Pins]:
        """Guests that run, by key."""
        pairs = zip(self.guests, self.described)
        return {guest.key: one.now for guest, one in pairs if one.now is not None}

    @property
    def current(self) -> Mapping[str, Placement]:
        """What the planner takes for placements of ours that are in force."""
        pairs = zip(self.guests, self.described)
        return {guest.key: one.held for guest, one in pairs if one.held is not None}


def of(
    host: Host, named: Iterable[tuple[str, DescribedGuest]], notes: tuple[str, ...] = ()
) -> PlanningInput:
    """A scene of guests, each with the name of where it comes from. Raises CouldNot."""
    known = list(named)
    guests = tuple(
        replace(_guest(name, one.xml), resident=dict(one.resident)) for name, one in known
    )
    return PlanningInput(host, tuple(one for _, one in known), guests, notes)


def _guest(name: str, text: str) -> Guest:
    try:
        return read_guest(text)
    except GuestError as error:
        raise CouldNot(f"{name}: {error}") from error


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Options that name a host and guests in files."""
    parser.add_argument("--host", metavar="CAPABILITIES.xml", help="a host from a file, not this")
    parser.add_argument(
        "--guest",
        metavar="DOMAIN.xml",
        nargs="+",
        action="extend",
        default=[],
        help="its guests, with --host",
    )


# --- files ----------------------------------------------------------------------------------------


def gather(capabilities: str | None, files: list[str]) -> PlanningInput:
    """A host and guests from files, or this host with its running guests. Raises CouldNot."""
    if len(files) > MOST_GUESTS:
        raise CouldNot(f"{len(files)} guests are more than {MOST_GUESTS}, the maximum for one host")
    if not capabilities:
        if files:
            raise CouldNot("--guest needs --host: the capabilities of the host to plan for")
        return here(KernelFS())
    host = host_of(capabilities)
    return of(host, ((name, DescribedGuest(text_of(Path(name)))) for name in files))


def host_of(capabilities: str) -> Host:
    """The host of a file. Raises CouldNot."""
    return _host(capabilities, text_of(Path(capabilities)))


def text_of(file: Path, most: int = MOST_CHARACTERS) -> str:
    """A file's text. Raises CouldNot, also where it is longer than what is read."""
    try:
        with file.open("rb") as opened:
            content = opened.read(most + 1)
    except OSError as error:
        raise CouldNot(f"{file}: {error.strerror}") from error
    return decoded(str(file), content, most)


def decoded(name: str, content: bytes, most: int) -> str:
    """The text of what was read, at most one byte more than is allowed. Raises CouldNot."""
    if len(content) > most:
        raise CouldNot(f"{name}: longer than {most} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = 1 + content[: error.start].count(b"\n")
        raise CouldNot(f"{name}: line {line}: it is not UTF-8 text") from error


def _host(name: str, text: str) -> Host:
    try:
        return Host.from_xml(text)
    except HostError as error:
        raise CouldNot(f"{name}: {error}") from error


# --- this host ------------------------------------------------------------------------------------


def here(fs: KernelFS, uri: str = SYSTEM) -> PlanningInput:
    """This host: by libvirt with the kernel's view over it, else by sysfs and /proc alone.

    What cannot be read is noted. Raises CouldNot where the host itself is not to be read.
    """
    found = descriptions(uri)
    held = {one.key: one for one in held_placements.everything().get(uri, [])}
    if found is None:
        host = _by_kernel(fs)
        documents = processes.documents(fs, {one.pid for one in held.values() if one.placed})
        notes = list(processes.remarks(fs, len(documents)))
    else:
        host = overlay(_host("libvirt's capabilities", found[0]), fs)
        documents, notes = _by_process(fs, found[1])
    known = []
    for name, (pid, xml) in sorted(documents.items()):
        try:
            known.append((name, _running(fs, pid, xml, held, notes)))
        except GuestError as error:
            why = printable(str(error))
            notes.append(
                f"guest {printable(name)} is not included, because its XML cannot be read: {why}"
            )
    if any(not one.resident for _, one in known):
        host = _without_free(host)
        notes.append(NOT_ROOT)
    return of(host, known, tuple(notes))


def _by_kernel(fs: KernelFS) -> Host:
    try:
        return read(fs)
    except HostError as error:
        raise CouldNot(f"this host: {error}") from error


def _by_process(
    fs: KernelFS, documents: Mapping[str, str]
) -> tuple[dict[str, tuple[int, str]], list[str]]:
    """Process (0: not to be seen) and XML by name; and what could not be seen."""
    uuids = {name: _uuid(xml) for name, xml in documents.items()}
    pids = qemu_threads.ThreadFinder(fs).find({uuid: name for name, uuid in uuids.items() if uuid})
    found = {name: (pids.get(uuids[name], 0), xml) for name, xml in documents.items()}
    hidden = sorted(printable(name) for name, (pid, _) in found.items() if not pid)
    notes = [
        "these guests' processes are not visible, so libvirt's view of them is used:"
        f" {', '.join(hidden)}"
    ]
    return found, notes if hidden else []


def _uuid(xml: str) -> str:
    try:
        return read_guest(xml).uuid
    except GuestError:
        return ""


def _running(
    fs: KernelFS,
    pid: int,
    xml: str,
    held: Mapping[str, held_placements.HeldPlacement],
    notes: list[str],
) -> DescribedGuest:
    """A guest as libvirt and the kernel have it now; what is not known is noted.

    Raises GuestError.
    """
    guest = read_guest(xml)
    ours, present = placement_tag.read(xml)
    ran = held.get(originals.key(guest.uuid, 0, start_time(pid) or 0)) if pid else None
    placed = ran.placement if ran is not None and ran.placed else _tagged(guest, ours)
    if not pid:
        return DescribedGuest(xml, present, held=placed)
    threads = qemu_threads.pins(qemu_threads.affinity(fs, pid))
    now = threads.over(Pins(memory=present.memory))
    return DescribedGuest(xml, now, _resident(fs, pid, guest.name, notes), placed)


def _resident(fs: KernelFS, pid: int, name: str, notes: list[str]) -> Mapping[int, int]:
    """Where a guest's memory is; without root that is not known of any, and noted once."""
    try:
        return numa_maps.by_node(numa_maps.read(fs, pid))
    except KernelFileError as error:
        if os.geteuid() == 0:
            notes.append(f"guest {printable(name)}: the location of its memory: {error}")
        return {}


def _tagged(guest: Guest, ours: Pins) -> Placement | None:
    """What our tag says of a guest of which nothing else is kept; None without."""
    vcpus = {number: ours.vcpus[number] for number in guest.online if number in ours.vcpus}
    if not vcpus:
        return None
    texts = set(vcpus.values())
    alone = len(texts) == len(vcpus) and all(map(str.isdecimal, texts))
    kind = PlacementKind.DEDICATED if alone else PlacementKind.SHARED
    memory = MemoryPlacement(*ours.memory) if ours.memory else None
    return Placement(
        guest.name, guest.uuid, kind, (), vcpus, ours.emulator, ours.iothreads, memory,
        "it was placed earlier by vm_pinning",
    )  # fmt: skip


def _without_free(host: Host) -> Host:
    nodes = tuple(replace(node, available=None, free_pages=None) for node in host.nodes)
    return replace(host, nodes=nodes)
