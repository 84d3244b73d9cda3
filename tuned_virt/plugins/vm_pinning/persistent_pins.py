# SPDX-License-Identifier: GPL-2.0-or-later
"""Placements in guests' configurations (persist=config|both), and out of them again.

What we write there is tagged as in running guests, and only where the owner has written nothing: so
the way back is to take out whatever still is as its tag says. What the owner has changed since is
not, and stays. Configurations outlive the host's boot, and the originals do not, so the tags in
them count; the originals only say that there are some, for `tuned-virt restore` and status.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import replace

from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.core.plan import Change
from tuned_virt.guests.originals import GuestOriginals
from tuned_virt.guests.tracker import TrackedGuest
from tuned_virt.libvirt_api import guest_pins as libvirt
from tuned_virt.libvirt_api import placement_tag
from tuned_virt.libvirt_api.connection import Connection, Domain
from tuned_virt.libvirt_api.errors import LibvirtError
from tuned_virt.libvirt_api.guest_pins import Configuration
from tuned_virt.model.guest import Guest, GuestError, printable, read_guest
from tuned_virt.model.guest.model import UserPins
from tuned_virt.model.pins import MEMORY, Part, Pins, Target
from tuned_virt.placement import Placement
from tuned_virt.plugins.vm_pinning.configured_guest import RECORD, ConfiguredGuest, key, parse
from tuned_virt.plugins.vm_pinning.original import PLUGIN
from tuned_virt.plugins.vm_pinning.pinner import words

log = logging.getLogger("tuned")

IOTHREADIDS = re.compile(r"\s*<iothreadids>(?:\s*<iothread id='\d+'/>)*\s*</iothreadids>", re.ASCII)
"""IOThreads with a number each, and nothing else."""

NOBODY = "the profile no longer applies to it"


class PersistentPins:
    """The configurations of one libvirt's guests. For its worker; may raise LibvirtError."""

    def __init__(self, uri: str, originals: Originals, journal: Journal) -> None:
        self._uri = uri
        self._journal = journal
        self._originals = GuestOriginals(RECORD, parse, originals, uri)
        self._known: dict[str, tuple[str, Placement]] = {}
        self._remarks: dict[str, str] = {}
        self._looked: set[str] = set()
        self._asked = False

    @property
    def idle(self) -> bool:
        """Whether no configuration has anything of ours."""
        return self._originals.settled

    def defer_restore(self, why: str) -> None:
        """See `GuestController`."""
        self._originals.set_all_pending(why)

    def hold(self, link: Connection, seen: TrackedGuest, placement: Placement) -> str:
        """Have a guest's configuration say a placement; what an administrator should know."""
        self._asked = True
        uuid, now = seen.active.uuid, (seen.key, placement)
        if self._known.get(uuid) != now:
            self._remarks[uuid] = self._write(link, seen.active, placement)
            self._known[uuid] = now
        return self._remarks[uuid]

    def drop(self, link: Connection, seen: TrackedGuest) -> None:
        """Nobody wants a running guest's placement in its configuration."""
        active = seen.active
        self._known.pop(active.uuid, None)
        first = seen.key not in self._looked
        self._looked.add(seen.key)
        tagged = placement_tag.NAMESPACE in active.xml  # by a configuration of an earlier boot
        if (first and tagged) or key(active.uuid) in self._originals.guests:
            self._clean(link, libvirt.configuration(link, active))

    def drop_all(self, link: Connection) -> None:
        """Nobody wants anything, of guests that do not run either."""
        self._known.clear()
        if self._asked or not self.idle:
            found = libvirt.configurations(link)
            marks = {self._clean(link, one) for one in found}
            self._originals.let_go(self._originals.guests.keys() - marks)  # no longer defined
            self._asked = False

    def forget(self, gone: Iterable[str]) -> None:
        """Runs that have ended."""
        self._looked -= set(gone)

    def _write(self, link: Connection, active: Domain, placement: Placement) -> str:
        xml = libvirt.configuration(link, active).xml
        try:
            guest = read_guest(xml) if xml else None
        except GuestError as error:
            return f"its configuration cannot be read: {error}"
        if guest is None:
            return "it is transient and has no configuration"
        if _pinned_by_its_owner(guest):
            return "its configuration contains pins of its owner"
        ours, _ = placement_tag.read(xml)
        theirs = cleaned(xml)
        pins = _possible(placement.pins(guest.vcpus), guest)
        mark = ConfiguredGuest(self._uri, active.uuid, active.name)
        if pins != ours and self._originals.keep({mark.key: mark}):
            if ours.without(pins):
                libvirt.redefine(link, theirs)
            return self._set(link, active, pins, placement.why, "<iothreadids>" in theirs)
        return ""

    def _set(self, link: Connection, active: Domain, pins: Pins, why: str, listed: bool) -> str:
        refused = libvirt.configure(link, active, pins, listed)
        if refused:
            self._clean(link, libvirt.configuration(link, active))
            return "its configuration: " + "; ".join(f"{k}: {v}" for k, v in refused.items())
        self._say(active.uuid, active.name, words(pins), why)
        return ""

    def _clean(self, link: Connection, found: Configuration) -> str:
        """Take ours out of one configuration; its key, whatever became of it."""
        mark = ConfiguredGuest(self._uri, found.uuid, found.name)
        if placement_tag.NAMESPACE in found.xml:
            self._originals.keep({mark.key: mark})
            try:
                theirs = clean(link, found.xml)
            except LibvirtError as error:
                if not link.alive():
                    raise
                self._originals.set_pending({mark.key: f"its configuration: {error}"})
                return mark.key
            self._say(mark.uuid, mark.name, "as before", theirs or NOBODY)
        self._originals.let_go([mark.key])
        return mark.key

    def _say(self, uuid: str, name: str, after: str, why: str) -> None:
        told = printable(name)
        place = f"libvirt guest {uuid}"
        self._journal.add(PLUGIN, Change(f"{told} configuration", place, "", after, why))
        log.info("%s: guest %s: configuration: %s (%s)", PLUGIN, told, after, why)


def clean(link: Connection, xml: str) -> str:
    """Redefine a guest without what is ours; what of it is its owner's now, in words.

    Raises LibvirtError.
    """
    ours, present = placement_tag.read(xml)
    theirs = present.without(ours)
    libvirt.redefine(link, cleaned(xml))
    return f"its owner has changed it since, and that is kept: {words(theirs)}" if theirs else ""


def _unlisted(listed: re.Match[str]) -> str:
    """Nothing, where the numbers are those that libvirt gives by itself."""
    numbers = [int(number) for number in re.findall(r"\d+", listed[0])]
    return "" if numbers == list(range(1, len(numbers) + 1)) else listed[0]


def clean_guest(link: Connection, mark: ConfiguredGuest) -> None:
    """The same for a guest if it is still defined. Raises LibvirtError."""
    for found in libvirt.configurations(link):
        if found.uuid == mark.uuid and placement_tag.NAMESPACE in found.xml:
            clean(link, found.xml)


def cleaned(xml: str) -> str:
    """A configuration without what is ours, and what libvirt has written because of that."""
    stripped = (placement_tag.strip(xml.encode()) or xml.encode()).decode()
    return IOTHREADIDS.sub(_unlisted, stripped) if placement_tag.unlisted(xml) else stripped


def _pinned_by_its_owner(guest: Guest) -> bool:
    """Whether a configuration says where threads run; where memory is to be is no matter."""
    return replace(guest.owned, memory="", nodes=frozenset(), memnodes={}) != UserPins()


def _possible(pins: Pins, guest: Guest) -> Pins:
    """Without those of IOThreads that the configuration lacks, or memory that it places itself."""
    listed = {Target(Part.IOTHREAD, number) for number in guest.iothreads}

    def possible(target: Target) -> bool:
        if target.part is Part.IOTHREAD:
            return target in listed
        return target != MEMORY or not guest.owned.memory

    return Pins.of(pin for pin in pins.items() if possible(pin[0]))
