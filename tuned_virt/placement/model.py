# SPDX-License-Identifier: GPL-2.0-or-later
"""What planning yields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from tuned_virt.model.pins import Pins

WALLS = ("restrictive", "strict")
"""Memory modes that are a <numatune>."""


class PlacementKind(str, Enum):
    """What became of a guest.

    DEDICATED  each vCPU has a pCPU that no other guest's vCPU is given
    SHARED     vCPUs float over the undedicated CPUs of its nodes
    UNPLACED   left alone, on purpose or because there is no room; `why` says which
    OWNER      its owner, or Nova, oVirt or KubeVirt, has placed it; shown as it is, never changed
    """

    DEDICATED = "dedicated"
    SHARED = "shared"
    UNPLACED = "unplaced"
    OWNER = "owner"


@dataclass(frozen=True)
class MemoryPlacement:
    """Where a guest's memory belongs, and what ties it to there.

    mode     move: pages are moved in batches, no wall; restrictive, strict: <numatune> (a wall)
    nodeset  nodes as "0" or "0-1"
    cells    vNUMA cell → node, where a guest with several cells has them on several nodes
    """

    mode: str
    nodeset: str
    cells: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Placement:
    """Where one guest's threads and memory go.

    nodes      NUMA nodes of its vCPUs
    vcpus      vCPU → CPUs as "4" or "0-3", for the vCPUs that are online
    emulator   CPUs of the emulator thread and vhost work; "" leaves them alone
    iothreads  IOThread → CPUs
    memory     None leaves it alone
    why        one sentence: the node, the runner-up, what decided; or why it is not placed
    chosen     it is UNPLACED because its policy is none, not for lack of room
    ungranted  what was asked for and is not so, such as "policy=dedicated"; "" for nothing
    ignored    what of the guest's metadata does not count; "" where all does
    """

    guest: str
    uuid: str
    kind: PlacementKind
    nodes: tuple[int, ...]
    vcpus: Mapping[int, str]
    emulator: str
    iothreads: Mapping[int, str]
    memory: MemoryPlacement | None
    why: str
    chosen: bool = False
    ungranted: str = ""
    ignored: str = ""

    def pins(self, vcpus: int = 0) -> Pins:
        """What it means for libvirt.

        Those of so many vCPUs that are not plugged in yet are sent where they do no harm: a
        floating guest's to the same CPUs, a dedicated one's to the emulator's, until they are
        planned for.
        """
        sets = list(dict.fromkeys(self.vcpus.values()))
        spare = sets[0] if len(sets) == 1 else self.emulator or (sets[0] if sets else "")
        unplugged = dict.fromkeys(range(vcpus), spare) if sets else {}
        memory = self.memory
        wall = (memory.mode, memory.nodeset) if memory and memory.mode in WALLS else None
        return Pins({**unplugged, **self.vcpus}, self.emulator, self.iothreads, wall)


def unplaced(
    guest: str, uuid: str, why: str, chosen: bool = False, ungranted: str = ""
) -> Placement:
    """A guest that is left alone, and why."""
    kind = PlacementKind.UNPLACED
    return Placement(guest, uuid, kind, (), {}, "", {}, None, why, chosen, ungranted)


@dataclass(frozen=True)
class PlacementPlan:
    """Placements by guest's name and UUID, and what the administrator should know besides."""

    placements: tuple[Placement, ...]
    warnings: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every guest is placed that was to be, and as it was asked for."""
        return all(
            (one.kind is not PlacementKind.UNPLACED or one.chosen) and not one.ungranted
            for one in self.placements
        )
