# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest as it was found: what is kept on disk before its first pin, and the way back.

Kept as the baseline's originals, one JSON text a run of a guest (see `guestkeeping`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tuned_virt.guests.originals import key
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api.placement_tag import Pins
from tuned_virt.model.guest import qemu_threads

PLUGIN = "vm_pinning"
"""Its name in the baseline."""


@dataclass(frozen=True)
class OriginalPins:
    """One run of a guest.

    pid, start  its process (0: not to be seen here), and the clock tick at which that started
    vcpus, emulator, iothreads  where its threads could run, as cpusets
    memory      (mode, nodeset) of <numatune>, None without
    nodes       all nodes with memory: the way back from a wall where there was none
    """

    uri: str
    uuid: str
    name: str
    id: int
    pid: int
    start: int
    vcpus: Mapping[int, str] = field(default_factory=dict)
    emulator: str = ""
    iothreads: Mapping[int, str] = field(default_factory=dict)
    memory: tuple[str, str] | None = None
    nodes: str = ""

    @property
    def key(self) -> str:
        """The setting's name in the baseline."""
        return key(self.uuid, self.id, self.start)

    def text(self) -> str:
        """As it is kept."""
        return json.dumps(asdict(self))

    def back(self, ours: Pins) -> Pins:
        """What to set so that all that is ours is as it was found."""
        everywhere = self.emulator or next(iter(self.vcpus.values()), "")
        vcpus = {number: self.vcpus.get(number, everywhere) for number in ours.vcpus}
        iothreads = {number: self.iothreads.get(number, everywhere) for number in ours.iothreads}
        memory = None
        if ours.memory:
            memory = self.memory or (ours.memory[0], self.nodes)
        return Pins(
            {number: cpus for number, cpus in vcpus.items() if cpus},
            everywhere if ours.emulator else None,
            {number: cpus for number, cpus in iothreads.items() if cpus},
            memory,
        )

    def confine(self, fs: KernelFS) -> list[str]:
        """Put the threads' affinities back without libvirt; those that could not be, in words."""
        found = qemu_threads.read(fs, self.pid)
        everywhere = self.emulator or next(iter(self.vcpus.values()), "")
        stuck = []
        for kind, now, before in (
            ("vCPU", found.vcpus, self.vcpus),
            ("IOThread", found.iothreads, self.iothreads),
        ):
            for number, thread in now.items():
                if qemu_threads.confine([thread], before.get(number, everywhere)):
                    stuck.append(f"{kind} {number}")
        if qemu_threads.confine(found.emulator, everywhere):
            stuck.append("emulator")
        return stuck


def parse(text: str) -> OriginalPins:
    """What `text` wrote. Raises ValueError for anything else."""
    try:
        content = json.loads(text)
        return OriginalPins(
            **{
                **content,
                "vcpus": _numbered(content["vcpus"]),
                "iothreads": _numbered(content["iothreads"]),
                "memory": tuple(content["memory"]) if content["memory"] else None,
            }
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _numbered(content: Mapping[str, Any]) -> dict[int, str]:
    return {int(number): str(cpus) for number, cpus in content.items()}
