# SPDX-License-Identifier: GPL-2.0-or-later
"""Running guests: where each is placed, where its memory is, how long its vCPUs wait.

So many series per guest: ten, one more for each node that it is placed on, and one for each node
that has memory of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from tuned_virt.frozen_dataclasses import dataclass, field, replace
from tuned_virt.metrics.family import FamilySamples, MetricFamily, family
from tuned_virt.placement import PlacementKind

LONGEST_NAME = 128
"""Characters of a guest's name in a label."""

GUESTS = family(
    "guests",
    "Running guests: dedicated (own pCPUs), shared (floating within nodes), owner (placed by its"
    " owner), unplaced (left out).",
    "placement",
)
PLACEMENT = family(
    "guest_placement_info", "How a guest is placed; always 1.", "guest", "uuid", "placement"
)
NODE = family("guest_placement_node", "A NUMA node that a guest is placed on; 1.", "guest", "node")
VCPUS = family("guest_vcpus", "vCPUs that a guest has now.", "guest")
DELAY = family(
    "guest_vcpu_delay_seconds_total",
    "Time that a guest's vCPUs together were runnable and waited for a CPU (run-queue delay).",
    "guest",
)
MEMORY = family("guest_memory_bytes", "A guest's memory on a NUMA node.", "guest", "node")
LOCAL = family(
    "guest_local_memory_ratio",
    "Part of a guest's memory that is on its nodes, from 0 to 1.",
    "guest",
)
DRIFT = family(
    "guest_drift",
    "Threads and settings of a guest that are not where vm_pinning has put them.",
    "guest",
)
UNGRANTED = family(
    "guest_ungranted", "Whether a guest lacks what its profile or its owner requested.", "guest"
)
KSM_MERGED = family("guest_ksm_merged_bytes", "A guest's memory that KSM has merged.", "guest")
KSM_PROFIT = family(
    "guest_ksm_profit_bytes",
    "What KSM saves of a guest's memory less its bookkeeping, by the kernel; can be negative.",
    "guest",
)


@dataclass(frozen=True)
class GuestValues:
    """One running guest; None is what is not there or cannot be read.

    placement  None where vm_pinning's record cannot be read
    memory     bytes by node
    waited     seconds, of all its vCPUs together
    drift, ungranted  None of a guest that vm_pinning does not hold
    """

    guest: str
    uuid: str
    pid: int
    placement: PlacementKind | None
    nodes: tuple[int, ...] = ()
    vcpus: int | None = None
    waited: float | None = None
    memory: Mapping[int, int] = field(default_factory=dict)
    local: float | None = None
    drift: int | None = None
    ungranted: bool | None = None
    ksm_merged: float | None = None
    ksm_profit: float | None = None


def samples(guests: Sequence[GuestValues]) -> Iterator[FamilySamples]:
    """All families of guests; of none each kind is 0."""
    known = distinct(guests)
    yield _counted(known)
    yield PLACEMENT.info(
        (one.guest, one.uuid, one.placement.value) for one in known if one.placement
    )
    yield NODE.info((one.guest, str(node)) for one in known for node in one.nodes)
    yield MEMORY.by(
        {(one.guest, str(node)): size for one in known for node, size in one.memory.items()}
    )
    for one_family, value in PER_GUEST.items():
        yield one_family.by({(one.guest,): value(one) for one in known})


PER_GUEST: Mapping[MetricFamily, Callable[[GuestValues], float | None]] = {
    VCPUS: lambda one: one.vcpus,
    DELAY: lambda one: one.waited,
    LOCAL: lambda one: one.local,
    DRIFT: lambda one: one.drift,
    UNGRANTED: lambda one: one.ungranted,
    KSM_MERGED: lambda one: one.ksm_merged,
    KSM_PROFIT: lambda one: one.ksm_profit,
}


def _counted(guests: Sequence[GuestValues]) -> FamilySamples:
    """By kind; of kinds that are not known there is no count."""
    if any(one.placement is None for one in guests):
        return GUESTS.by({})
    found = Counter(one.placement for one in guests)
    return GUESTS.by({(kind.value,): found[kind] for kind in PlacementKind})


def distinct(guests: Sequence[GuestValues]) -> list[GuestValues]:
    """Each with a name of its own: two series of the same labels would spoil the whole scrape.

    Names that several have get the number of the process; long ones are cut.
    """
    cut = [replace(one, guest=one.guest[:LONGEST_NAME]) for one in guests]
    times = Counter(one.guest for one in cut)
    taken = {name for name, number in times.items() if number == 1}
    return [one if times[one.guest] == 1 else _numbered(one, taken) for one in cut]


def _numbered(guest: GuestValues, taken: set[str]) -> GuestValues:
    name = guest.guest
    while name in taken or name == guest.guest:
        name += f"-{guest.pid}"
    taken.add(name)
    return replace(guest, guest=name)
