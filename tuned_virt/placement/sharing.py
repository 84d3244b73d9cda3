# SPDX-License-Identifier: GPL-2.0-or-later
"""What a plan gives each guest and takes from it, in cores, against nobody being pinned by us.

Runnable vCPUs share the cores on which they may run in a max-min fair way: nobody can get more
unless one who has no more gets less. `CoreYield` says what cores give to busy threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Host
from tuned_virt.placement.core_yield import SMT_GAIN, CoreYield, of_core, together
from tuned_virt.placement.model import Placement, PlacementKind

Affinity = frozenset[int]

SWEEPS = 60
SETTLED = 1e-6


@dataclass(frozen=True)
class CoreShare:
    """Cores that a guest gets when it alone is busy and when all guests are, and would get if no
    pin were ours."""

    vcpus: int
    alone: float
    alone_unpinned: float
    busy: float
    busy_unpinned: float

    @property
    def kept(self) -> float:
        """The part that it keeps in the worse of the two cases."""
        return min(self.alone / self.alone_unpinned, self.busy / self.busy_unpinned)


def core_shares(
    host: Host, guests: Iterable[Guest], placements: Iterable[Placement]
) -> dict[str, CoreShare]:
    """By key of the guest, of guests with vCPUs that have CPUs to run on."""
    made = {one.uuid or one.guest: one for one in placements}
    known = [guest for guest in guests if guest.key in made]
    planned = {one.key: _threads(host, one, made[one.key]) for one in known}
    as_if = {one.key: _threads(host, one, _unpinned(made[one.key])) for one in known}
    busy, busy_unpinned = _of_guests(host, planned), _of_guests(host, as_if)
    known_alone: dict[frozenset[tuple[Affinity, float]], float] = {}

    def alone(threads: Mapping[Affinity, float]) -> float:
        same = frozenset(threads.items())
        if same not in known_alone:
            known_alone[same] = _of_guests(host, {"": threads})[""]
        return known_alone[same]

    return {
        guest.key: CoreShare(
            len(guest.online),
            alone(planned[guest.key]),
            min(alone(as_if[guest.key]), _of_own_cores(guest)),
            busy[guest.key],
            min(busy_unpinned[guest.key], _of_own_cores(guest)),
        )
        for guest in known
        if guest.online
    }


def _of_own_cores(guest: Guest) -> float:
    """The most that a guest asks for: what it takes for threads of a core are one's."""
    return len(guest.online) * (1 + SMT_GAIN if guest.threads > 1 else 1) / guest.threads


def _unpinned(one: Placement) -> Placement | None:
    """What would be without us: an owner's pins stay."""
    return one if one.kind is PlacementKind.OWNER else None


def _threads(host: Host, guest: Guest, placed: Placement | None) -> dict[Affinity, float]:
    """Where how many of a guest's vCPUs may run; without a pin on all that are not isolated."""
    online = frozenset(host.cpus)
    usual = online - host.isolated - host.nohz_full or online
    found: dict[Affinity, float] = {}
    texts = placed.vcpus if placed else {}
    for vcpu in guest.online:
        cpus = cpuset.parse(texts.get(vcpu, "")) & online or usual
        found[cpus] = found.get(cpus, 0) + 1
    return found


def _of_guests(host: Host, busy: Mapping[str, Mapping[Affinity, float]]) -> dict[str, float]:
    """Cores for each guest when these are busy."""
    runnable: dict[Affinity, float] = {}
    for threads in busy.values():
        for cpus, number in threads.items():
            runnable[cpus] = runnable.get(cpus, 0) + number
    shares = fair_shares(host, runnable)
    return {
        key: sum(shares[cpus] * number for cpus, number in threads.items())
        for key, threads in busy.items()
    }


def fair_shares(host: Host, runnable: Mapping[Affinity, float]) -> dict[Affinity, float]:
    """Cores for each of so many runnable threads, by the CPUs on which they may run."""
    groups = list(runnable)
    yields, members = _atoms(host, groups)
    used = [dict.fromkeys(atoms, 0.0) for atoms in members]
    loads = [0.0] * len(yields)
    for _ in range(SWEEPS):
        moved = 0.0
        for group, cpus in enumerate(groups):
            own = used[group]
            for atom, number in own.items():
                loads[atom] -= number
            anew = _level(yields, {atom: loads[atom] for atom in own}, runnable[cpus])
            for atom, number in anew.items():
                loads[atom] += number
                moved = max(moved, abs(number - own[atom]))
            used[group] = anew
        if moved < SETTLED:
            break
    return {
        cpus: sum(yields[atom].share(loads[atom]) * number for atom, number in own.items())
        / runnable[cpus]
        for cpus, own in zip(groups, used)
    }


def _level(
    yields: Sequence[CoreYield], others: Mapping[int, float], number: float
) -> dict[int, float]:
    """So many threads over sets of CPUs that others use as well, so that all get as much."""
    if len(others) == 1:
        return dict.fromkeys(others, number)

    def room(share: float) -> dict[int, float]:
        return {a: max(0.0, yields[a].most(share) - load) for a, load in others.items()}

    low, high = 0.0, max(yields[atom].share(0) for atom in others)
    for _ in range(50):
        middle = (low + high) / 2
        if sum(room(middle).values()) >= number:
            low = middle
        else:
            high = middle
    rooms = room(low)
    part = number / sum(rooms.values())
    return {atom: room * part for atom, room in rooms.items()}


def _atoms(host: Host, groups: Sequence[Affinity]) -> tuple[list[CoreYield], list[list[int]]]:
    """Sets of CPUs that are the same to all groups: their yields, and the sets of each group."""
    of_cpu: dict[int, list[int]] = {}
    for group, cpus in enumerate(groups):
        for cpu in cpus:
            of_cpu.setdefault(cpu, []).append(group)
    sets: dict[tuple[int, ...], set[int]] = {}
    for cpu, known in of_cpu.items():
        sets.setdefault(tuple(known), set()).add(cpu)
    members: list[list[int]] = [[] for _ in groups]
    for atom, known_by in enumerate(sets):
        for group in known_by:
            members[group].append(atom)
    return [_yield(host, cpus, of_cpu.keys()) for cpus in sets.values()], members


def _yield(host: Host, cpus: set[int], used: Set[int]) -> CoreYield:
    """What threads get of these; of a core, all threads that are used share."""
    cores: dict[frozenset[int], int] = {}
    for cpu in cpus:
        siblings = frozenset(host.cpus[cpu].siblings & used)
        cores[siblings] = cores.get(siblings, 0) + 1
    return together(
        of_core(threads, host.cpus[min(core)].capacity, len(core))
        for core, threads in cores.items()
    )
