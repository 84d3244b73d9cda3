# SPDX-License-Identifier: GPL-2.0-or-later
"""A plan that only adds guests to the last one's begins where that ended.

What found no room before finds none now, and what has its place keeps it, so only the new guests
are placed, and only placements change from whose nodes those have taken something.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from tuned_virt.model.guest import Guest, Owned
from tuned_virt.placement.assignment import Outcome
from tuned_virt.placement.model import Placement
from tuned_virt.placement.place import place_guest
from tuned_virt.placement.placements import Decided, Result
from tuned_virt.placement.planning_run import Session, housekeeping
from tuned_virt.placement.policy import Policy


def followed(
    before: Session, after: Session, guests: list[Guest], current: Mapping[str, Placement]
) -> bool:
    """Make `after` of what `before` ended with; False where more has changed."""
    if after.host is not before.host or len(guests) < len(before.guests):
        return False
    new = _new(before, after, guests, current)
    if new is None:
        return False
    return _begun(before, after, new) and _placed(before, after)


def _new(
    before: Session, after: Session, guests: list[Guest], current: Mapping[str, Placement]
) -> list[Guest] | None:
    """The guests that were not there; None where others, or their placements, are not the same."""
    new = []
    one_policy = isinstance(after.policy, Policy)
    if one_policy and after.policy != before.policy:
        return None
    for guest in guests:
        key = guest.key
        if key not in before.guests and key not in current:
            new.append(guest)
        elif before.guests.get(key) is not guest or not (
            one_policy or after.policy_of(guest) is before.policy_of(guest)
        ):
            return None
    if not all(_in_force(before, key, current.get(key)) for key in before.guests):
        return None
    return new if len(guests) - len(new) == len(before.guests) else None


def _in_force(before: Session, key: str, now: Placement | None) -> bool:
    """Whether a guest is where it was placed; one that is left alone need not be mentioned."""
    if now is None:
        return key in before.fixed or not before.outcomes[key].seats
    return now is before.result.placements[key] or key in before.fixed


def _begun(before: Session, after: Session, new: list[Guest]) -> bool:
    after.sort_out(new)
    after.housekeeping = housekeeping(after.host, [*before.wanted, *after.wanted], [])
    said = after.fixed or after.warnings != list(after.host.notes)
    if said or after.housekeeping != before.housekeeping:
        return False
    if any(one.guest.resident or one.guest.owned != Owned() for one in after.wanted):
        return False
    if any(not one.seats and one.shares for one in before.outcomes.values()):
        return False
    if before.board.endless and any(one.dedicated for one in after.wanted):
        return False
    return not any(one.policy.rebalance for one in (*before.wanted, *after.wanted))


def _untouched(outcome: Outcome, places: Set[int], banks: Set[int]) -> bool:
    """Whether a guest, its emulator and its memory are on such places and no such bank alone."""
    return (
        outcome.seats.keys() <= places
        and not outcome.wanted.guest.iothreads
        and not any(share.bank in banks for share in outcome.shares)
    )


def _placed(before: Session, after: Session) -> bool:
    after.board = before.board.copy()
    after.outcomes = dict(before.outcomes)
    touched: set[int] = set()
    banks: set[int] = set()
    for wanted in sorted(after.wanted, key=lambda wanted: wanted.hardness):
        outcome = place_guest(after.board, wanted)
        after.outcomes[wanted.guest.key] = outcome
        touched.update(outcome.seats)
        banks.update(share.bank for share in outcome.shares)
    kept = {key: before.result.placements[key] for key, one in before.outcomes.items() if one.seats}
    calm = {place for place, room in enumerate(after.board.rooms) if room.shared} - touched
    untouched = {key for key in kept if _untouched(before.outcomes[key], calm, banks)}
    after.guests = {**before.guests, **after.guests}
    after.fixed = before.fixed
    after.wanted = [*before.wanted, *after.wanted]
    after.warnings = before.warnings
    decided = Decided(after.outcomes, after.fixed, after.warnings, kept, untouched)
    after.result = Result(after.board, decided)
    return True
