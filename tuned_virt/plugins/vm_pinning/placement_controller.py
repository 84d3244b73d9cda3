# SPDX-License-Identifier: GPL-2.0-or-later
"""Which guests are to be placed now, and the planner asked about all of them at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping

from tuned_virt import placement
from tuned_virt.frozen_dataclasses import dataclass, field, replace
from tuned_virt.guests.manager import Claim
from tuned_virt.guests.tracker import Seen, TrackedGuest
from tuned_virt.kernel import numa_maps
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.libvirt_api.connection import Connection
from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Host, HostError, NumaNode, measured, overlay, partitions
from tuned_virt.placement import Placement, PlacementPolicy
from tuned_virt.plugins.vm_pinning import already_running
from tuned_virt.plugins.vm_pinning.already_running import RunningDecision, bound
from tuned_virt.plugins.vm_pinning.held_placements import HeldPlacement
from tuned_virt.plugins.vm_pinning.original import PLUGIN
from tuned_virt.plugins.vm_pinning.policy import PinningPolicy, Rebalance, RunningGuests

log = logging.getLogger("tuned")

ONLINE = "/sys/devices/system/cpu/online"

WORTH_A_LOOK = 1 << 18
"""KiB (256 MiB) that must have become free on a node before guests without a place are planned
again: free memory is never twice the same."""

MOVES = 1
"""Guests that may move to a better place each time another has stopped, with rebalance=on_stop."""

PlanFunction = Callable[
    [Host, "list[Guest]", Mapping[str, PlacementPolicy], Mapping[str, Placement]],
    placement.PlacementPlan,
]

PinningClaim = Claim[PinningPolicy]

Wanted = Mapping[str, PinningClaim]
"""Claims by a guest's key."""

Held = Mapping[str, HeldPlacement]
"""Guests that were placed, or left, by key."""


@dataclass(frozen=True)
class PlacementDecision:
    """Placements by key, as far as they are planned; guests left alone; seconds to wait."""

    placements: Mapping[str, Placement] = field(default_factory=dict)
    remarks: Held = field(default_factory=dict)
    wait: float | None = None


@dataclass
class _Asked:
    """What the planner is asked: guests and policies by UUID, and where each must stay."""

    guests: dict[str, Guest] = field(default_factory=dict)
    policies: dict[str, PlacementPolicy] = field(default_factory=dict)
    bound: dict[str, RunningDecision] = field(default_factory=dict)
    remarks: dict[str, HeldPlacement] = field(default_factory=dict)
    wait: float | None = None


@dataclass(frozen=True)
class _Question:
    """What the planner is asked, as far as its answer depends on it."""

    host: Host
    guests: Mapping[str, Guest]
    policies: Mapping[str, PlacementPolicy]

    def may_move_guests(self, before: _Question | None) -> bool:
        """Whether placed guests may have to move since then, or since an earlier process's."""
        return (
            before is None
            or self.host != before.host
            or any(self.policies.get(uuid, one) != one for uuid, one in before.policies.items())
        )


def left(seen: TrackedGuest, claim: PinningClaim, why: str, ungranted: str = "") -> HeldPlacement:
    """A guest that is left alone, and why."""
    active = seen.active
    placed = placement.unplaced(active.name, active.uuid, why, True, ungranted)
    return HeldPlacement(seen.key, active.uuid, claim.device, active.name, seen.pid, placed)


class PlacementController:
    """Asks the planner when something has changed that it depends on."""

    def __init__(self, fs: KernelFS, plan: PlanFunction | None = None) -> None:
        self._fs = fs
        self._plan = plan or placement.Planner().plan
        self._link: Connection | None = None
        self._xml = ""
        self._online: tuple[str | None, Mapping[str, frozenset[int]]] | None = None
        self._free: Host | None = None
        self._host: Host | None = None
        self._resident: dict[str, Mapping[int, int]] = {}
        self._unread: dict[str, str] = {}  # why it cannot be told where a guest's memory is
        self._located: dict[str, tuple[Guest, Guest]] = {}
        self._short = False
        self._last: _Question | None = None
        self._placements: Mapping[str, Placement] = {}
        self._warned: tuple[str, ...] = ()
        self._uuids: frozenset[str] = frozenset()

    def prepare(self, link: Connection, seen: Seen) -> None:
        """Read the host before the first guest comes: libvirt takes long to tell the first time."""
        self._read_host(link, seen)

    def rest(self) -> None:
        """Hold no connection; the next one's host is read anew."""
        self._link = None

    def decide(
        self, link: Connection, seen: Seen, wanted: Wanted, held: Held, replan: bool
    ) -> PlacementDecision:
        """Where guests belong. May raise LibvirtError."""
        for key in (self._resident.keys() | self._unread.keys()) - seen.keys():
            self._resident.pop(key, None)
            self._unread.pop(key, None)
            self._located.pop(key, None)
        decided = self._decide(self._read_host(link, seen), seen, wanted, held, replan)
        if self._short and self._has_more_free():
            decided = self._decide(self._measure_host(seen), seen, wanted, held, replan=True)
        return decided

    def _decide(
        self, host: Host | None, seen: Seen, wanted: Wanted, held: Held, replan: bool
    ) -> PlacementDecision:
        asked = self._ask(seen, wanted, held)
        if host is None:
            return PlacementDecision({}, asked.remarks, asked.wait)
        question = _Question(host, asked.guests, asked.policies)
        stopped = bool(self._uuids - {one.active.uuid for one in seen.values()})
        self._uuids = frozenset(one.active.uuid for one in seen.values())
        if question != self._last or replan or stopped:
            current = {
                one.uuid: one.placement for one in held.values() if one.planned and one.key in seen
            }
            policies = _rebalancing(asked.policies, wanted, seen, stopped)
            guests = dict(asked.guests)
            if policies != asked.policies or question.may_move_guests(self._last):
                guests.update(self._rooted(seen, current))
            self._last = question
            plan = self._plan(host, [*guests.values()], policies, current)
            self._say(plan)
            self._short = not plan.complete
            self._placements = {one.uuid: one for one in plan.placements}
        placements = {
            key: _bound(self._placements[seen[key].active.uuid], asked.bound.get(key))
            for key in wanted
            if key not in asked.remarks and seen[key].active.uuid in self._placements
        }
        return PlacementDecision(placements, asked.remarks, asked.wait)

    def _say(self, plan: placement.PlacementPlan) -> None:
        if plan.warnings != self._warned:
            for warning in plan.warnings:
                log.warning("%s: %s", PLUGIN, warning)
            self._warned = plan.warnings

    # --- the host ---------------------------------------------------------------------------

    def _read_host(self, link: Connection, seen: Seen) -> Host | None:
        """The host; measured again where CPUs or libvirt's view of it are not what they were."""
        online = self._online_now()
        if link is self._link and online == self._online and self._host is not None:
            return self._host
        xml = link.capabilities()
        same = (xml, online) == (self._xml, self._online) and self._host is not None
        self._link, self._xml, self._online = link, xml, online
        return self._host if same else self._measure_host(seen)

    def _online_now(self) -> tuple[str | None, Mapping[str, frozenset[int]]]:
        """CPUs that are online, and what of them cpusets leave to guests."""
        online = self._fs.read_optional(ONLINE)
        return online, partitions.read(self._fs, self._free.cpus.keys() if self._free else ())

    def _measure_host(self, seen: Seen) -> Host | None:
        """The host with what is free now, and with what its guests have now as theirs to have."""
        try:
            self._free = overlay(Host.from_xml(self._xml), self._fs)
        except HostError as error:
            log.error("%s: no guest is placed: libvirt's capabilities: %s", PLUGIN, error)
            self._free = self._host = None
            return None
        self._resident.clear()
        self._located.clear()
        running = [self._locate(one, one.guest) for one in seen.values() if one.guest is not None]
        self._host = placement.for_guests(self._free, running)
        return self._host

    def _has_more_free(self) -> bool:
        """Whether memory or huge pages have become free that guests were not placed for lack of."""
        if self._free is None:
            return False
        return any(map(_more_free, self._free.nodes, measured(self._free, self._fs)))

    # --- the guests -------------------------------------------------------------------------

    def _ask(self, seen: Seen, wanted: Wanted, held: Held) -> _Asked:
        guests = {
            one.active.uuid: one.guest if _planned(held.get(key)) else self._located_at(one)
            for key, one in seen.items()
            if one.guest is not None
        }
        asked = _Asked(guests)
        for key, claim in wanted.items():
            one = seen[key]
            if one.guest is None:
                asked.remarks[key] = left(one, claim, one.error)
            elif _planned(held.get(key)):
                asked.policies[one.active.uuid] = claim.policy.placement
            elif one.started_under_profile:
                self._started(asked, one, claim)
            else:
                self._already(asked, one, claim)
        return asked

    def _started(self, asked: _Asked, one: TrackedGuest, claim: PinningClaim) -> None:
        wait = one.since + claim.policy.grace - time.monotonic()
        if wait > 0:
            asked.wait = min(wait, asked.wait or wait)
            why = f"it is booting, and is placed {claim.policy.grace} s after its start (grace)"
            asked.remarks[one.key] = left(one, claim, why)
            return
        asked.policies[one.active.uuid] = claim.policy.placement
        if one.guest is not None and not one.guest.movable:
            asked.guests[one.active.uuid] = self._locate(one, one.guest)
            self._leave_unread(asked, one, claim)

    def _leave_unread(self, asked: _Asked, one: TrackedGuest, claim: PinningClaim) -> bool:
        """Whether a guest is left alone, as its vCPUs might be parted from its memory."""
        why = self._unread.get(one.key)
        if why is None:
            return False
        asked.policies.pop(one.active.uuid, None)
        asked.remarks[one.key] = left(one, claim, why, "a place with its memory")
        return True

    def _already(self, asked: _Asked, one: TrackedGuest, claim: PinningClaim) -> None:
        assert one.guest is not None
        guest = one.guest
        if claim.policy.running is not RunningGuests.LEAVE:
            asked.guests[one.active.uuid] = guest = self._locate(one, guest)
            if self._leave_unread(asked, one, claim):
                return
        decided = already_running.decide(claim.policy, guest)
        if decided.policy is None:
            asked.remarks[one.key] = left(one, claim, decided.why, decided.ungranted)
            return
        asked.policies[one.active.uuid] = decided.policy
        if decided.node is not None:
            asked.bound[one.key] = decided

    def _rooted(self, seen: Seen, current: Mapping[str, Placement]) -> Iterator[tuple[str, Guest]]:
        """Placed guests whose memory cannot follow, with where it is: they move only to there."""
        for one in seen.values():
            if one.active.uuid in current and one.guest is not None and not one.guest.movable:
                yield one.active.uuid, self._locate(one, one.guest)

    def _located_at(self, one: TrackedGuest) -> Guest:
        """A guest with where its memory was when it was measured, if it was."""
        assert one.guest is not None
        return self._locate(one, one.guest) if one.key in self._resident else one.guest

    def _locate(self, one: TrackedGuest, guest: Guest) -> Guest:
        """A guest with where its memory is; the same object as long as it is the same guest."""
        known = self._located.get(one.key)
        if known is None or known[0] is not guest or not known[1].resident:
            self._located[one.key] = known = guest, replace(guest, resident=self._measure(one))
        return known[1]

    def _measure(self, one: TrackedGuest) -> Mapping[int, int]:
        if one.key not in self._resident:
            self._unread.pop(one.key, None)
            try:
                areas = numa_maps.read(self._fs, one.pid) if one.pid else []
            except KernelFileError as error:
                self._unread[one.key] = f"the location of its memory: {error}"
                return {}
            found = numa_maps.by_node(areas)
            if not found:
                return found
            self._resident[one.key] = found
        return self._resident[one.key]


def _planned(held: HeldPlacement | None) -> bool:
    return held is not None and held.planned


def _more_free(before: NumaNode, now: NumaNode) -> bool:
    pages, known = now.free_pages or {}, before.free_pages or {}
    more = (now.available or 0) - (before.available or 0)
    return more >= WORTH_A_LOOK or any(free > known.get(size, 0) for size, free in pages.items())


def _bound(placed: Placement, decided: RunningDecision | None) -> Placement:
    return bound(placed, decided.node, decided.ungranted) if decided else placed


def _rebalancing(
    policies: Mapping[str, PlacementPolicy], wanted: Wanted, seen: Seen, stopped: bool
) -> Mapping[str, PlacementPolicy]:
    """Policies that let a guest move, where another has stopped and theirs says so."""
    if not stopped:
        return policies
    free = {
        seen[key].active.uuid
        for key, claim in wanted.items()
        if claim.policy.rebalance is Rebalance.ON_STOP
    }
    return {
        uuid: replace(policy, rebalance=MOVES) if uuid in free else policy
        for uuid, policy in policies.items()
    }
