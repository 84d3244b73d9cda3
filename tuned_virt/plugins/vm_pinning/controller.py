# SPDX-License-Identifier: GPL-2.0-or-later
"""vm_pinning on one libvirt's guests: what is claimed is planned at once, pinned, and held."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Set
from dataclasses import replace

from tuned_virt.core.engine import Finding
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.guests.manager import GuestController, Run
from tuned_virt.guests.originals import GuestOriginals
from tuned_virt.guests.tracker import GuestTracker, Seen, TrackedGuest
from tuned_virt.kernel import timeouts
from tuned_virt.kernel.files import AnyPath, KernelFileError, KernelFS
from tuned_virt.libvirt_api.connection import Connection
from tuned_virt.libvirt_api.errors import GuestGone, LibvirtError
from tuned_virt.libvirt_api.guest_pins import GONE
from tuned_virt.libvirt_api.worker import GuestsView, LibvirtWorker
from tuned_virt.model.guest import printable
from tuned_virt.model.pins import Pins
from tuned_virt.placement import Placement, PlacementKind
from tuned_virt.plugins.vm_pinning import held_placements, original, pinner
from tuned_virt.plugins.vm_pinning.held_placements import HeldPlacement
from tuned_virt.plugins.vm_pinning.host_settings import HostSettings
from tuned_virt.plugins.vm_pinning.original import PLUGIN, OriginalPins
from tuned_virt.plugins.vm_pinning.page_migrator import PageMigration, PageMigrator
from tuned_virt.plugins.vm_pinning.persistent_pins import PersistentPins
from tuned_virt.plugins.vm_pinning.placement_controller import (
    PinningClaim,
    PlacementController,
    Wanted,
)
from tuned_virt.plugins.vm_pinning.policy import Persist, PinningPolicy, RunningGuests
from tuned_virt.plugins.vm_pinning.verify import PinningVerifier

log = logging.getLogger("tuned")

LOOK = 10.0
"""Seconds between looks at the host's online CPUs while anything is pinned."""


class PinningController(GuestController[PinningPolicy]):
    """All but `findings` and what the migrator calls is for libvirt's worker."""

    def __init__(  # noqa: PLR0913 - its edges, which tests replace
        self,
        uri: str,
        fs: KernelFS,
        originals: Originals,
        journal: Journal,
        placer: PlacementController | None = None,
        file: AnyPath = held_placements.FILE,
        host: HostSettings | None = None,
    ) -> None:
        self._uri = uri
        self._fs = fs
        self._host = host or HostSettings(fs, originals, journal)
        self._tracker = GuestTracker(fs)
        self._pinner = pinner.Pinner(fs, journal)
        self._placer = placer or PlacementController(fs)
        self._file = file
        self._verifier = PinningVerifier(fs)
        self._migrator = PageMigrator(fs, self._moved)
        self._originals = GuestOriginals(PLUGIN, original.parse, originals, uri)
        self._configurations = PersistentPins(uri, originals, journal)
        self._loaded = False
        self._interrupted: set[str] = set()
        self._held: dict[str, HeldPlacement] = {}
        self._claims: Mapping[Run, PinningClaim] | None = None
        self._saved: Mapping[str, HeldPlacement] = {}
        self._again = float("inf")

    # --- the worker's turn ------------------------------------------------------------------

    def adjust(self, view: GuestsView, claims: Mapping[Run, PinningClaim] | None) -> float | None:
        """See `GuestController`."""
        active_since = self.active_since if self._claims is None else 0
        kept = self._originals.guests
        seen = self._tracker.look(view.guests.values(), active_since, kept)
        self._load(view.connection, seen)
        news = claims is not self._claims
        if claims is not None and news:
            self._originals.take()
        self._forget({*self._originals.guests, *self._held} - seen.keys())
        wanted = self._wanted(claims or {})
        active = {key: claim for key, claim in wanted.items() if not claim.policy.observe}
        unclaimed = self._originals.guests.keys() - active.keys()
        self._originals.let_go(
            {key for key in unclaimed if self._put_back(view.connection, seen[key])}
        )
        for key in self._held.keys() - wanted.keys() - self._originals.guests.keys():
            del self._held[key]
        if claims is not None:
            self._placer.prepare(view.connection, seen)
        self._claims = claims
        view.connection.vcpus.follow(self._tracker.pluggable() if wanted else {})
        wait = self._place(view, seen, wanted, news) if wanted else None
        if claims is not None:
            self._configure(view.connection, seen, active)
        else:
            self._configurations.drop_all(view.connection)
        self._host.adjust(active, self._held, seen, news)
        self._save()
        if self._host.due or (claims is None and not self.idle):
            self._try_again()
        return min((at for at in (wait, self._wait_for_again()) if at is not None), default=None)

    def _load(self, link: Connection, seen: Seen) -> None:
        """What an earlier process holds, once; what a kill interrupted is tagged again."""
        if self._loaded:
            return
        self._saved = held_placements.load(self._uri, self._file)
        self._held = dict(self._saved)
        self._interrupted = {key for key, held in self._held.items() if held.follows}
        for key, kept in self._originals.guests.items():
            if key in seen:
                pins = self._held[key].pins if key in self._held else Pins()
                active = self._pinner.adopt(link, seen[key], kept, pins)
                if active is not seen[key].active:
                    self._tracker.reread(active.run, active)
        self._loaded = True

    def _wanted(self, claims: Mapping[Run, PinningClaim]) -> dict[str, PinningClaim]:
        found = ((self._tracker.run(run), claim) for run, claim in claims.items())
        return {seen.key: claim for seen, claim in found if seen is not None}

    def _forget(self, gone: Set[str]) -> None:
        """Guests that run no more: their past is nobody's."""
        for key in gone:
            self._migrator.forget(key)
            self._held.pop(key, None)
        self._interrupted -= gone
        self._originals.let_go(gone)
        self._configurations.forget(gone)

    # --- the way back -----------------------------------------------------------------------

    def _put_back(self, link: Connection, seen: TrackedGuest) -> bool:
        """Whether nothing of a guest is to be kept any more."""
        key = seen.key
        self._migrator.forget(key)
        held = self._held.get(key)
        try:
            refused = self._pinner.put_back(
                link, seen, self._originals.guests[key], held.pins if held else Pins()
            )
        except GuestGone:
            return True
        if refused:
            why = "; ".join(f"{what}: {reason}" for what, reason in refused.items())
            self._originals.set_pending({key: why})
            self._try_again()
            return False
        self._held.pop(key, None)
        return True

    def defer_restore(self, why: str) -> None:
        """See `GuestController`."""
        self._originals.set_all_pending(why)
        self._configurations.defer_restore(why)
        self._host.restore()

    @property
    def idle(self) -> bool:
        """See `GuestController`."""
        returned = self._originals.settled and self._configurations.idle
        return returned and not self._host.due and self._saved == self._held

    def rest(self) -> None:
        """See `GuestController`."""
        self._tracker.rest()
        self._placer.rest()

    def _try_again(self) -> None:
        self._again = min(self._again, time.monotonic() + timeouts.RETRY_REFUSED)

    def _wait_for_again(self) -> float | None:
        if self._again == float("inf"):
            return None
        left_over = self._again - time.monotonic()
        if left_over <= 0:
            self._again = float("inf")
        return max(0.0, left_over)

    # --- placing ----------------------------------------------------------------------------

    def _place(self, view: GuestsView, seen: Seen, wanted: Wanted, news: bool) -> float | None:
        decided = self._placer.decide(view.connection, seen, wanted, self._held, news)
        for held in decided.remarks.values():
            self._hold(held)
        changes = {
            key: placement
            for key, placement in decided.placements.items()
            if self._differs(seen[key], placement, wanted[key], news)
        }
        for key in self._interrupted & wanted.keys() - changes.keys():
            self._move(seen[key], self._held[key].placement, wanted[key].policy)
        self._interrupted -= wanted.keys()
        if changes:
            self._change(view.connection, seen, wanted, changes)
        return min(decided.wait, LOOK) if decided.wait is not None else LOOK

    def _differs(
        self, seen: TrackedGuest, placement: Placement, claim: PinningClaim, news: bool
    ) -> bool:
        """Whether a guest is not where it should be; at an apply its threads are looked at too."""
        held = self._held.get(seen.key)
        if held is None or held.placement != placement:
            return True
        if (held.observed, held.later) != (claim.policy.observe, self._later(seen, claim)):
            return True
        if held.failed:
            return news or self._again == float("inf")
        return news and held.placed and self._verifier.drifted(held)

    def _later(self, seen: TrackedGuest, claim: PinningClaim) -> bool:
        """Whether a guest that can be placed is not before it starts anew."""
        return (
            claim.policy.persist is Persist.CONFIG
            and seen.key not in self._originals.guests
            and not claim.policy.observe
            and not pinner.starts_pinned(self._fs, seen)
        )

    def _change(
        self, link: Connection, seen: Seen, wanted: Wanted, changes: Mapping[str, Placement]
    ) -> None:
        """Keep how all these guests are in one write, then change one after the other."""
        self._host.spare(seen[key] for key in changes)
        needed: dict[str, Pins] = {}
        new: dict[str, OriginalPins] = {}
        for key, placement in changes.items():
            still = wanted[key].policy.observe or self._later(seen[key], wanted[key])
            if placement.vcpus and not still:
                before = self._originals.guests.get(key)
                try:
                    before = before or pinner.found(self._fs, link, seen[key], self._uri)
                except (LibvirtError, KernelFileError) as error:
                    if not link.alive():
                        raise
                    if getattr(error, "code", None) not in GONE:
                        why = {"its threads": str(error)}
                        self._not_set(seen[key], placement, wanted[key], why)
                    continue
                needed[key] = self._needed(seen[key], placement, before)
                new.update({key: before} if needed[key] else {})
        saved = self._originals.keep(new)
        for key, placement in changes.items():
            if saved or key not in new:
                self._carry_out(link, seen[key], placement, wanted[key], needed.get(key))
            else:
                self._not_set(seen[key], placement, wanted[key], {"its original": "not saved"})

    def _not_set(
        self,
        seen: TrackedGuest,
        placement: Placement,
        claim: PinningClaim,
        refused: Mapping[str, str],
        said: Mapping[str, str] | None = None,
    ) -> None:
        """Have verify say it of a guest, and try again; what the log has said is not repeated."""
        before = self._held.get(seen.key)
        new = self._new(seen, placement, claim)
        self._hold(replace(new, failed=refused, pins=before.pins if before else Pins()))
        self._try_again()
        known = said if said is not None else before.failed if before else {}
        for what, why in refused.items() - known.items():
            log.error("%s: guest %s: %s: %s", PLUGIN, claim.device, what, why)

    @staticmethod
    def _new(seen: TrackedGuest, placement: Placement, claim: PinningClaim) -> HeldPlacement:
        name, uuid = seen.active.name, seen.active.uuid
        return HeldPlacement(seen.key, uuid, claim.device, name, seen.pid, placement)

    def _needed(self, seen: TrackedGuest, placement: Placement, before: OriginalPins) -> Pins:
        """What to set: only what changes anything, and what earlier pins set and these do not."""
        pins = placement.pins(seen.guest.vcpus if seen.guest else 0)
        held = self._held.get(seen.key)
        if held is None or not held.pins:
            return pins.without(before.pins)
        return pins.over(before.back(held.pins))

    def _carry_out(
        self,
        link: Connection,
        seen: TrackedGuest,
        placement: Placement,
        claim: PinningClaim,
        pins: Pins | None,
    ) -> None:
        new = self._new(seen, placement, claim)
        if claim.policy.observe:
            log.info("%s: observe: guest %s: %s", PLUGIN, claim.device, placement.why)
            self._hold(replace(new, observed=True))
        elif not placement.vcpus or placement.kind in (PlacementKind.UNPLACED, PlacementKind.OWNER):
            self._yield_to(link, seen, placement)
            self._hold(new)
        elif self._later(seen, claim):
            self._hold(replace(new, later=True))
        elif pins:
            self._pin(link, seen, pins, new, claim)
        elif pins is not None:
            log.info("%s: guest %s needs no change: %s", PLUGIN, claim.device, placement.why)
            self._hold(new)
            self._follow(seen, placement, claim.policy)

    def _pin(
        self,
        link: Connection,
        seen: TrackedGuest,
        pins: Pins,
        new: HeldPlacement,
        claim: PinningClaim,
    ) -> None:
        try:
            refused = self._pinner.pin(link, seen, pins, new.placement)
        except GuestGone:
            return
        if refused:
            before = self._held.get(seen.key)
            if self._put_back(link, seen):
                self._originals.let_go({seen.key})
            said = before.failed if before else {}
            self._not_set(seen, new.placement, claim, refused, said)
            return
        self._hold(replace(new, pins=pins))
        self._follow(seen, new.placement, claim.policy)

    def _yield_to(self, link: Connection, seen: TrackedGuest, placement: Placement) -> None:
        """It has no place, or an owner now: what is still ours goes back."""
        if seen.key in self._originals.guests and self._put_back(link, seen):
            self._originals.let_go({seen.key})
        log.info("%s: guest %s: %s", PLUGIN, printable(seen.active.name), placement.why)

    def _hold(self, held: HeldPlacement) -> None:
        self._held[held.key] = held

    # --- configurations ---------------------------------------------------------------------

    def _configure(self, link: Connection, seen: Seen, wanted: Wanted) -> None:
        for key, one in seen.items():
            held, claim = self._held.get(key), wanted.get(key)
            if claim and claim.policy.persist.configures and held and held.planned:
                remark = self._configurations.hold(link, one, held.placement)
                self._hold(replace(held, configuration=remark))
            else:
                self._configurations.drop(link, one)

    # --- memory -----------------------------------------------------------------------------

    def _follow(self, seen: TrackedGuest, placement: Placement, policy: PinningPolicy) -> None:
        if seen.started_under_profile or policy.running is RunningGuests.PLACE:
            self._move(
                seen, placement, policy
            )  # else it was running before, and no memory moves unasked

    def _move(self, seen: TrackedGuest, placement: Placement, policy: PinningPolicy) -> None:
        memory, guest = placement.memory, seen.guest
        if seen.pid and policy.move and guest and memory and memory.mode == "move":
            self._hold(replace(self._held[seen.key], follows=True))
            self._migrator.add(
                PageMigration(
                    seen.key,
                    seen.active.name,
                    *(seen.pid, seen.start, placement.nodes, policy.rate, policy.limit),
                    movable=guest.movable,
                )
            )

    def _moved(self, key: str, remark: str) -> None:
        held = self._held.get(key)
        if held is not None:
            self._held[key] = replace(held, remark=remark, follows=False)
            if held.remark != remark:  # the rest is written with the worker's next look
                self._save()

    def _save(self) -> None:
        held = dict(self._held)
        if held != self._saved and held_placements.save(self._uri, held, self._file):
            self._saved = held

    # --- verify -----------------------------------------------------------------------------

    def findings(
        self, claims: Mapping[Run, PinningClaim], asked: LibvirtWorker, ignore_missing: bool
    ) -> Iterable[Finding]:
        """See `GuestController`."""
        held = {(one.uuid, one.device): one for one in self._held.values()}
        pairs = [(claim, held.get((run[0], claim.device))) for run, claim in claims.items()]
        return (*self._verifier.findings(pairs, asked), *self._host.findings(claims.values()))
