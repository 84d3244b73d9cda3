# SPDX-License-Identifier: GPL-2.0-or-later
"""What vm_pinning sets of the host beside its guests: automatic balancing, and isolation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

from tuned_virt.core.engine import Finding
from tuned_virt.core.journal import Journal
from tuned_virt.core.options import BadOptions
from tuned_virt.core.originals import Originals
from tuned_virt.guests.tracker import Seen, TrackedGuest
from tuned_virt.kernel import cpuset
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.guest import printable
from tuned_virt.placement import PlacementKind, policy_for
from tuned_virt.placement.policy import Smt
from tuned_virt.plugins.vm_pinning import numa_balancing
from tuned_virt.plugins.vm_pinning.held_placements import HeldPlacement
from tuned_virt.plugins.vm_pinning.isolation.controller import HostIsolation
from tuned_virt.plugins.vm_pinning.isolation.host import guest_setting
from tuned_virt.plugins.vm_pinning.isolation.planner import Cpus, HostIsolationPolicy
from tuned_virt.plugins.vm_pinning.placement_controller import PinningClaim, Wanted
from tuned_virt.plugins.vm_pinning.policy import Isolation

Held = Mapping[str, HeldPlacement]

SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


class HostSettings:
    """Brings the host to what the claims on its guests ask, and back."""

    def __init__(
        self,
        fs: KernelFS,
        originals: Originals,
        journal: Journal,
        isolation: HostIsolation | None = None,
    ) -> None:
        self._fs = fs
        self._originals = originals
        self._journal = journal
        self._isolation = isolation or HostIsolation(fs, originals, journal)
        self._balancing_due = False
        self._isolated: frozenset[int] = frozenset()

    def adjust(self, active: Wanted, held: Held, seen: Seen, anew: bool) -> None:
        """Carry out what is asked for these guests; with `anew` also what was before."""
        if active or anew or self._balancing_due:
            wish = numa_balancing.asked(claim.policy for claim in active.values())
            done = numa_balancing.set_to(wish, self._fs, self._originals, self._journal)
            self._balancing_due = not done
        asked = {key: claim for key, claim in active.items() if _isolates(held.get(key), claim)}
        policy = self._policy(asked, held, seen)
        self._isolated = frozenset(seen[key].pid for key in asked if key in seen)
        self._isolation.adjust(policy, anew or self._isolation.incomplete)

    def spare(self, guests: Iterable[TrackedGuest]) -> None:
        """These guests are about to be pinned: their threads are put where they were."""
        self._isolation.spare({_setting(one) for one in guests})

    def restore(self) -> None:
        """Put back what needs no libvirt."""
        self._isolation.restore()

    @property
    def due(self) -> bool:
        """Whether something could not be put back yet."""
        return self._balancing_due or self._isolation.incomplete

    def findings(self, claims: Iterable[PinningClaim]) -> Iterable[Finding]:
        """What verify says of the host, where these claims ask for anything."""
        if all(claim.policy.isolation is Isolation.NONE for claim in claims):
            return ()
        return self._isolation.findings(set(self._isolated))

    def _policy(self, asked: Wanted, held: Held, seen: Seen) -> HostIsolationPolicy:
        cpus: Cpus = frozenset()
        irqs: Cpus = frozenset()
        for key, claim in asked.items():
            own = self._cpus(held[key], _keeps_siblings_idle(seen.get(key), claim))
            cpus |= own
            irqs |= own if claim.policy.isolation is Isolation.HOST_IRQS else frozenset()
        loose = sorted(_setting(one) for one in seen.values() if cpus and _is_loose(one, held))
        return HostIsolationPolicy(cpus, irqs, tuple(loose))

    def _cpus(self, held: HeldPlacement, isolate: bool) -> Cpus:
        """The CPUs that are a guest's, with the siblings that smt=isolate keeps idle."""
        own = frozenset().union(*map(cpuset.parse, held.placement.vcpus.values()))
        if not isolate:
            return own
        known = (self._fs.read_optional(SIBLINGS.format(cpu)) or "" for cpu in own)
        return own.union(*map(cpuset.parse, known))


def _isolates(held: HeldPlacement | None, claim: PinningClaim) -> bool:
    """Whether a guest has CPUs of its own, and they are to be isolated."""
    if held is None or claim.policy.isolation is Isolation.NONE:
        return False
    return held.placed and held.placement.kind is PlacementKind.DEDICATED


def _keeps_siblings_idle(one: TrackedGuest | None, claim: PinningClaim) -> bool:
    """Whether a guest has smt=isolate, of its section, its group or by its own wish."""
    policy = claim.policy.placement
    with contextlib.suppress(BadOptions):
        if one is not None and one.guest is not None:
            policy = policy_for(one.guest, policy)
    return policy.smt is Smt.ISOLATE


def _is_loose(one: TrackedGuest, held: Held) -> bool:
    """Whether nobody has pinned a guest: neither we, nor its owner, nor a manager."""
    known, guest = held.get(one.key), one.guest
    if not one.pid or guest is None or guest.manager or (known and (known.pins or known.placed)):
        return False
    owned = guest.owned
    return not (owned.vcpus or owned.emulator or owned.iothreads or owned.automatic)


def _setting(one: TrackedGuest) -> str:
    return guest_setting(printable(one.active.name), one.pid, one.start)
