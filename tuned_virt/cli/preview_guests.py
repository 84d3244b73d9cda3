# SPDX-License-Identifier: GPL-2.0-or-later
"""What a switch would do to running guests: where they would be pinned, and their limits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from tuned_virt.cli import plan, plan_text, planning_input
from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.planning_input import PlanningInput
from tuned_virt.core.device_filter import selects
from tuned_virt.core.options import SYSTEM
from tuned_virt.core.originals import Originals
from tuned_virt.core.preview import PreviewedValue, PreviewRemark, SwitchPreview, known, unknown
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.guests.originals import GuestOriginals
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import guest_limits
from tuned_virt.libvirt_api.guest_limits import LimitsNow
from tuned_virt.libvirt_api.resource_tag import UNLIMITED
from tuned_virt.model.guest import Guest, printable
from tuned_virt.placement import Placement, PlacementKind
from tuned_virt.plugins.vm_limits import controller as limits
from tuned_virt.plugins.vm_limits import original
from tuned_virt.plugins.vm_limits.policy import LIBVIRT, SHARES, LimitsPolicy, wanted
from tuned_virt.plugins.vm_pinning.policy import PinningPolicy
from tuned_virt.tuned_api.preview.ours import GuestSection

PINNING, LIMITS = "vm_pinning", "vm_limits"


@dataclass(frozen=True)
class PreviewedGuest:
    """A running guest: where it would be placed, and what of it changes."""

    placement: Placement
    changes: tuple[plan_text.GuestChange, ...]


def guests(sections: Sequence[GuestSection], found: SwitchPreview) -> list[PreviewedGuest]:
    """Guests as the profile's sections would have them; adds what is refused and not known."""
    _put_back({one.plugin for one in sections}, found)
    acting = [one for one in sections if _asks(one)]
    uris = {one.policy.uri for one in acting} or {SYSTEM}
    try:
        gathered = planning_input.here(KernelFS(), min(uris)) if acting else None
    except CouldNot as error:
        found.not_known.append(PreviewRemark("guests", "", str(error)))
        gathered = None
    if gathered is None:
        return []
    _limit([one for one in acting if one.plugin == LIMITS], gathered, found)
    return list(_pin([one for one in acting if one.plugin == PINNING], gathered, found))


def _asks(section: GuestSection) -> bool:
    """Whether a section wants anything of guests."""
    if isinstance(section.policy, LimitsPolicy):
        return bool(section.policy.memory) or section.policy.shares is not None
    return True


def _put_back(wanted_plugins: Iterable[str], found: SwitchPreview) -> None:
    """Guests that the active profile has tuned and the new one does not."""
    for plugin in {PINNING, LIMITS} - set(wanted_plugins):
        number = len(Originals().record(plugin).originals)
        if number:
            what = "pins" if plugin == PINNING else "limits"
            reason = f"the original {what} of {number} guests are put back"
            found.notes.append(PreviewRemark(plugin, "", reason))


def _pin(
    sections: Sequence[GuestSection], gathered: PlanningInput, found: SwitchPreview
) -> Iterator[PreviewedGuest]:
    policies = [one.policy for one in sections if isinstance(one.policy, PinningPolicy)]
    if not policies:
        return
    if any(policy.observe for policy in policies):
        found.notes.append(PreviewRemark(PINNING, "", "observe=1: no guest is pinned"))
        return
    made = plan.planned(gathered, *(plan.PlanRequest(one.policy, one.devices) for one in sections))
    found.notes += [PreviewRemark(PINNING, "", printable(text)) for text in made.warnings]
    by_key = {guest.key: guest for guest in gathered.guests}
    for one in made.placements:
        key = one.uuid or one.guest
        changes = plan_text.changes(by_key[key], one, gathered.now.get(key))
        yield PreviewedGuest(one, tuple(changes))
        if one.kind is PlacementKind.UNPLACED and not one.chosen:
            found.refused.append(PreviewRemark(PINNING, printable(one.guest), printable(one.why)))


def _limit(sections: Sequence[GuestSection], gathered: PlanningInput, found: SwitchPreview) -> None:
    documents = {guest.key: one.xml for guest, one in zip(gathered.guests, gathered.described)}
    uris = {one.policy.uri for one in sections}
    now = guest_limits.current(min(uris)) if uris else {}
    kept = GuestOriginals(LIMITS, original.parse, Originals(), min(uris)).guests if uris else {}
    ours = {one.uuid: one for one in kept.values()}
    for guest in gathered.guests:
        names = (guest.name, guest.uuid)
        section = next((one for one in sections if selects(one.devices, names)), None)
        if section is not None:
            mine = ours.get(guest.uuid)
            owners = limits.owners(documents[guest.key], mine)
            told = now.get(guest.uuid) or LimitsNow(error="libvirt does not tell it")
            found.values += _limits(section, guest, owners, told, found)


def _limits(
    section: GuestSection,
    guest: Guest,
    owners: Collection[str],
    now: LimitsNow,
    found: SwitchPreview,
) -> Iterator[PreviewedValue]:
    """A guest's limits; those that its owner has set are not changed."""
    asked, name = wanted(section.policy, guest), printable(guest.name)
    found.refused += [PreviewRemark(LIMITS, name, reason) for reason in asked.refused]
    if section.policy.observe:
        found.notes.append(PreviewRemark(LIMITS, name, "observe=1: no limit is set"))
        return
    values = {option: asked.memory.get(own) for option, own in LIBVIRT.items()}
    for option, value in {**values, SHARES: asked.shares}.items():
        own = LIBVIRT.get(option, option)
        if value is not None and own in owners:
            reason = f"{option} is set by its owner, in its XML, and is not changed"
            found.notes.append(PreviewRemark(LIMITS, name, reason))
        elif value is not None:
            before = now.shares if option == SHARES else now.memory.get(own)
            reading = unknown(now.error) if before is None else known(_shown(option, before))
            names = (LIMITS, section.section, option, "")
            after = known(_shown(option, value))
            yield PreviewedValue(*names, reading, after, "set by the profile", None, name)


def _shown(option: str, value: int) -> str:
    if option == SHARES:
        return str(value)
    return "unlimited" if value >= UNLIMITED else f"{value} KiB"
