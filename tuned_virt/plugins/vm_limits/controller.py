# SPDX-License-Identifier: GPL-2.0-or-later
"""vm_limits on one libvirt's guests."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping

from tuned_virt.core.engine import Finding, Result
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.core.plan import Change
from tuned_virt.frozen_dataclasses import dataclass, replace
from tuned_virt.guests.manager import Claim, GuestController, Run
from tuned_virt.guests.originals import GuestOriginals
from tuned_virt.guests.tracker import GuestTracker, TrackedGuest
from tuned_virt.kernel import timeouts
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import guest_limits as libvirt
from tuned_virt.libvirt_api import resource_tag
from tuned_virt.libvirt_api.connection import Connection, Domain
from tuned_virt.libvirt_api.errors import GuestGone, LibvirtError, Unanswered
from tuned_virt.libvirt_api.resource_tag import UNLIMITED
from tuned_virt.libvirt_api.worker import GuestsView, LibvirtWorker
from tuned_virt.model.guest import printable
from tuned_virt.plugins.vm_limits import original
from tuned_virt.plugins.vm_limits.original import PLUGIN, OriginalLimits
from tuned_virt.plugins.vm_limits.policy import SHARES, LimitsPolicy, WantedLimits, wanted

log = logging.getLogger("tuned")

LimitsClaim = Claim[LimitsPolicy]


@dataclass(frozen=True)
class _LimitedGuest:
    """What one guest has been given, and what of it libvirt or the rules refused."""

    device: str
    policy: LimitsPolicy
    wanted: WantedLimits
    failed: Mapping[str, str]
    owners: tuple[str, ...] = ()


class LimitsController(GuestController[LimitsPolicy]):
    """All but `findings` is for libvirt's worker."""

    def __init__(self, uri: str, fs: KernelFS, originals: Originals, journal: Journal) -> None:
        self._uri = uri
        self._tracker = GuestTracker(fs)
        self._originals = GuestOriginals(PLUGIN, original.parse, originals, uri)
        self._journal = journal
        self._held: dict[str, _LimitedGuest] = {}
        self._by_run: dict[Run, str] = {}
        self._again: float | None = None

    def adjust(self, view: GuestsView, claims: Mapping[Run, LimitsClaim] | None) -> float | None:
        """See `GuestController`."""
        seen = self._tracker.look(view.guests.values(), 0, self._originals.guests)
        if claims is not None:
            self._originals.take()
        gone = {*self._originals.guests, *self._held} - seen.keys()
        self._originals.let_go(gone)
        runs = ((self._tracker.run(run), claim) for run, claim in (claims or {}).items())
        claimed = {one.key: claim for one, claim in runs if one is not None}
        for key in self._held.keys() - claimed.keys():
            del self._held[key]
        active = {key for key, claim in claimed.items() if not claim.policy.observe}
        for key in self._originals.guests.keys() - active:
            self._put_back(view.connection, seen[key])
        replan = self._again is not None and time.monotonic() >= self._again
        self._again = None if replan else self._again
        for key, claim in claimed.items():
            held = self._held.get(key)
            if held is None or held.policy != claim.policy or (held.failed and replan):
                self._limit(view.connection, seen[key], claim)
        self._by_run = {one.active.run: key for key, one in seen.items()}
        if self._again is None and not (claims or self._originals.settled):
            self._again = time.monotonic() + timeouts.RETRY_REFUSED
        return None if self._again is None else max(0.0, self._again - time.monotonic())

    def _limit(self, link: Connection, seen: TrackedGuest, claim: LimitsClaim) -> None:
        if seen.guest is None:
            self._hold(seen, claim, WantedLimits(), {"limits": seen.error})
            return
        of_owner = owners(seen.active.xml, self._originals.guests.get(seen.key))
        asked = wanted(claim.policy, seen.guest)
        mine = WantedLimits(
            {name: kib for name, kib in asked.memory.items() if name not in of_owner},
            None if SHARES in of_owner else asked.shares,
            asked.refused,
        )
        failed = dict.fromkeys(mine.refused, "")
        try:
            if not claim.policy.observe:
                failed.update(self._set(link, seen, mine))
        except GuestGone:
            return
        self._hold(seen, claim, mine, failed, of_owner)

    def _set(self, link: Connection, seen: TrackedGuest, mine: WantedLimits) -> Mapping[str, str]:
        if not mine.memory and mine.shares is None:
            if seen.key in self._originals.guests:
                self._put_back(link, seen)
            return {}
        if not self._keep(link, seen, mine):
            return {"limits": "the original values cannot be saved"}
        self._undo_dropped(link, seen, mine)
        refused = libvirt.apply(link, seen.active, mine.memory, mine.shares)
        if not refused:
            self._write(seen.active, "original", _words(mine), "set by the profile")
        return refused

    def _keep(self, link: Connection, seen: TrackedGuest, mine: WantedLimits) -> bool:
        """Keep what is found of the limits that are wanted, and not kept yet."""
        active, known = seen.active, self._originals.guests.get(seen.key)
        if known is not None and _covers(known, mine):
            return self._originals.keep({seen.key: known})  # a TuneD before this one did
        place = (self._uri, active.uuid, active.name, active.id, seen.pid, seen.start)
        before = known or OriginalLimits(*place)
        try:
            memory = libvirt.memory_limits(link, active) if mine.memory else {}
            if mine.shares is not None and before.shares is None:
                before = replace(before, shares=libvirt.cpu_shares(link, active))
        except LibvirtError as error:
            if not link.alive():
                raise
            log.error("%s: guest %s: %s", PLUGIN, printable(active.name), error)
            return False
        ours, _ = resource_tag.read(active.xml)  # with a guest that came without libvirt's hook
        found = {
            name: UNLIMITED if name in ours else memory.get(name, UNLIMITED) for name in mine.memory
        }
        both = {seen.key: replace(before, memory={**found, **before.memory})}
        return self._originals.amend(both) if known else self._originals.keep(both)

    def _undo_dropped(self, link: Connection, seen: TrackedGuest, mine: WantedLimits) -> None:
        """A new policy asks for less than the last: the rest goes back first, and is not ours."""
        before = self._originals.guests[seen.key]
        memory = {name: kib for name, kib in before.memory.items() if name not in mine.memory}
        shares = before.shares if mine.shares is None else None
        if not memory and shares is None:
            return
        if not libvirt.apply(link, seen.active, memory, shares):
            ours = {name: kib for name, kib in before.memory.items() if name in mine.memory}
            left = before.shares if mine.shares is not None else None
            self._originals.amend({seen.key: replace(before, memory=ours, shares=left)})

    def _put_back(self, link: Connection, seen: TrackedGuest) -> None:
        before = self._originals.guests[seen.key]
        try:
            refused = put_back(link, seen.active, before)
        except GuestGone:
            return
        if refused:
            why = "; ".join(f"{what}: {reason}" for what, reason in refused.items())
            self._originals.set_pending({seen.key: why})
            self._again = time.monotonic() + timeouts.RETRY_REFUSED
            return
        self._originals.let_go([seen.key])
        self._write(seen.active, "limited", "original", "the profile no longer applies to it")

    def _hold(
        self,
        seen: TrackedGuest,
        claim: LimitsClaim,
        mine: WantedLimits,
        failed: Mapping[str, str],
        owners: tuple[str, ...] = (),
    ) -> None:
        before = self._held.get(seen.key)
        self._held[seen.key] = _LimitedGuest(claim.device, claim.policy, mine, failed, owners)
        known = before.failed.items() if before else ()
        for what, why in failed.items() - known:
            log.error("%s: guest %s: %s", PLUGIN, claim.device, f"{what}: {why}" if why else what)
        if failed:
            self._again = time.monotonic() + timeouts.RETRY_REFUSED

    def _write(self, active: Domain, before: str, after: str, why: str) -> None:
        name = printable(active.name)
        change = Change(f"{name} limits", f"libvirt guest {active.uuid}", before, after, why)
        self._journal.add(PLUGIN, change)
        log.info("%s: guest %s: %s (%s)", PLUGIN, name, after, why)

    def defer_restore(self, why: str) -> None:
        """See `GuestController`."""
        self._originals.set_all_pending(why)

    @property
    def idle(self) -> bool:
        """See `GuestController`."""
        return self._originals.settled

    def rest(self) -> None:
        """See `GuestController`."""
        self._tracker.rest()

    # --- verify -----------------------------------------------------------------------------

    def findings(
        self, claims: Mapping[Run, LimitsClaim], asked: LibvirtWorker, ignore_missing: bool
    ) -> Iterable[Finding]:
        """One line for each guest that is limited, by us or by its owner."""
        pairs = [(run, self._held.get(self._by_run.get(run, ""))) for run in claims]
        found: dict[Run, tuple[Mapping[str, int], int | None]] = {}
        deadline = time.monotonic() + timeouts.VERIFY_GUESTS

        def ask(view: GuestsView) -> None:
            for run, held in pairs:
                active = view.guests.get(run[0])
                if held and active and not held.failed and time.monotonic() < deadline:
                    memory = libvirt.memory_limits(view.connection, active)
                    weighed = held.wanted.shares is not None
                    shares = libvirt.cpu_shares(view.connection, active) if weighed else None
                    found[run] = memory, shares

        remark = ""
        try:
            asked.ask(ask, timeouts.VERIFY_GUESTS)
        except Unanswered as error:
            remark = str(error)
        for run, held in pairs:
            if held is None:
                yield Finding(Result.NOTE, f"device {claims[run].device}: {PLUGIN}: not set yet")
            elif held.failed or held.owners or _words(held.wanted):
                yield _finding(held, found.get(run), remark)


def _covers(kept: OriginalLimits, mine: WantedLimits) -> bool:
    return mine.memory.keys() <= kept.memory.keys() and (
        mine.shares is None or kept.shares is not None
    )


def put_back(link: Connection, active: Domain, before: OriginalLimits) -> Mapping[str, str]:
    """Set what was found; what was refused. Raises GuestGone and LibvirtError."""
    return libvirt.apply(link, active, before.memory, before.shares)


def owners(xml: str, kept: OriginalLimits | None) -> tuple[str, ...]:
    """Limits in a domain's XML that we have not set, nor put back: a weight stays there.

    kept: of those that we have set. Raises NotXML.
    """
    tagged, there = resource_tag.read(xml)
    ours = {*tagged, *(kept.memory if kept else ())}
    if kept and kept.shares is not None:
        ours.add(SHARES)
    return tuple(name for name in resource_tag.limits(there) if name not in ours)


def _words(mine: WantedLimits) -> str:
    parts = [f"{name} {kib >> 10} MiB" for name, kib in sorted(mine.memory.items())]
    return ", ".join(parts + ([f"cpu_shares {mine.shares}"] if mine.shares else []))


def _finding(
    held: _LimitedGuest, found: tuple[Mapping[str, int], int | None] | None, remark: str
) -> Finding:
    place = f"device {held.device}: '{PLUGIN}'"
    if held.failed:
        why = "; ".join(f"{what}: {why}" if why else what for what, why in held.failed.items())
        return Finding(Result.FAILED, f"{place} = 'original', {why}")
    expected = _words(held.wanted)
    if held.policy.observe or not expected:
        text = f"observed only, would be {expected}" if expected else "no limits set by the profile"
        owners = f"; {', '.join(held.owners)}: the owner's" if held.owners else ""
        return Finding(Result.NOTE, f"device {held.device}: {PLUGIN}: {text}{owners}")
    if found is None:
        return Finding(Result.NOTE, f"device {held.device}: {PLUGIN}: {remark or 'not read'}")
    memory, shares = found
    shown = _words(WantedLimits({n: memory.get(n, 0) for n in held.wanted.memory}, shares))
    if shown == expected:
        return Finding(Result.PASSED, f"{place} = '{shown}'")
    return Finding(Result.FAILED, f"{place} = '{shown}', expected '{expected}'")
