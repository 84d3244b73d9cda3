# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest as it was found: what is kept on disk before its first pin, and the way back.

Kept among the plugin's originals, one JSON text a run of a guest (see `guests.originals`).
"""

from __future__ import annotations

import json
from collections.abc import Container

from tuned_virt.core.state_file import WRONG
from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.guests.originals import GuestOriginal, checked
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.kernel.procfs import start_time
from tuned_virt.model.guest import qemu_threads
from tuned_virt.model.pins import EMULATOR, MEMORY, Pins, Target

PLUGIN = "vm_pinning"
"""Its name among the originals."""

THREADS = "threads"


@dataclass(frozen=True)
class OriginalPins(GuestOriginal):
    """One run of a guest.

    pins   where its threads could run, and its <numatune>
    nodes  all nodes with memory: the way back from a wall where there was none
    """

    pins: Pins = field(default_factory=Pins)
    nodes: str = ""

    def text(self) -> str:
        """As it is kept: pins beside the rest, as in the first version."""
        content = {**vars(self), **self.pins.to_json()}
        del content["pins"]
        return json.dumps(content)

    def back(self, ours: Pins) -> Pins:
        """What to set so that all that is ours is as it was found."""
        before = {target: self._before(target) for target in ours}
        if ours.memory:
            before[MEMORY] = self.pins.get(MEMORY, f"{ours.memory[0]}={self.nodes}")
        return Pins.of(before.items())

    def _before(self, target: Target) -> str:
        """A thread that has come since was nowhere: it goes where the guest's others were."""
        everywhere = self.pins.emulator or next(iter(self.pins.vcpus.values()), "")
        return everywhere if target == EMULATOR else self.pins.get(target, everywhere)

    def confine(self, fs: KernelFS, only: Container[Target] | None = None) -> dict[str, str]:
        """Put threads' affinities back without libvirt; what could not be, and why."""
        try:
            threads = qemu_threads.read(fs, self.pid)
        except KernelFileError as error:
            return {THREADS: str(error)}
        if not threads and start_time(self.pid) == self.start:
            return {THREADS: "the kernel does not list them"}
        return {
            str(target): "the kernel refuses to restore its affinity"
            for target, some in threads.items()
            if (only is None or target in only) and self._before(target)
            if qemu_threads.confine(some, self._before(target))
        }


def parse(text: str) -> OriginalPins:
    """What `text` wrote. Raises ValueError for anything else."""
    try:
        content = json.loads(text)
        pins = Pins.from_json(content)
        for name in pins.to_json():
            del content[name]
        return checked(OriginalPins(**content, pins=pins))
    except WRONG as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
