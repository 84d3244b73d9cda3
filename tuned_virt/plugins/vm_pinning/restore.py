# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt restore` for vm_pinning: guests put back without TuneD, if need be without libvirt.

Where libvirt does not answer, threads get their affinities back from the kernel; libvirt still
believes in its pins then, so the guest stays pending until it can be told.
"""

from __future__ import annotations

from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.guests.originals import runs
from tuned_virt.guests.restore import GuestRestore
from tuned_virt.guests.tracker import TrackedGuest
from tuned_virt.kernel.files import AnyPath, KernelFileError, KernelFS
from tuned_virt.libvirt_api.worker import GuestsView
from tuned_virt.model.pins import Pins
from tuned_virt.plugins.vm_pinning import (
    configured_guest,
    held_placements,
    numa_balancing,
    original,
    policy,
)
from tuned_virt.plugins.vm_pinning.configured_guest import ConfiguredGuest
from tuned_virt.plugins.vm_pinning.original import OriginalPins
from tuned_virt.plugins.vm_pinning.persistent_pins import clean_guest
from tuned_virt.plugins.vm_pinning.pinner import Pinner


class PinningRestore(GuestRestore[OriginalPins]):
    """Puts back every guest that is kept, and kernel.numa_balancing."""

    name = original.PLUGIN
    options = policy.OPTIONS
    setting_names = policy.NAMES
    parse = staticmethod(policy.parse)
    original = staticmethod(original.parse)
    kernel_settings = frozenset({numa_balancing.SETTING})

    def __init__(self, file: AnyPath = held_placements.FILE) -> None:
        self._file = file

    def restore_kernel(self, fs: KernelFS, originals: Originals, journal: Journal) -> None:
        """kernel.numa_balancing."""
        numa_balancing.set_to(None, fs, originals, journal)

    def restored(self) -> None:
        """Nothing is held."""
        held_placements.remove(self._file)

    def put_back(self, view: GuestsView, fs: KernelFS, kept: OriginalPins) -> str:
        """See `GuestRestore`."""
        active = view.guests.get(kept.uuid)
        if active is None or active.id != kept.id:
            return ""
        seen = TrackedGuest(active, kept.key, kept.pid, kept.start, None, "", 0.0, False)
        try:
            held = held_placements.load(kept.uri, self._file).get(kept.key)
        except KernelFileError as error:
            return str(error)
        refused = Pinner(fs, Journal()).put_back(
            view.connection, seen, kept, held.pins if held else Pins()
        )
        return "; ".join(f"{what}: {why}" for what, why in refused.items())

    def without_libvirt(self, fs: KernelFS, kept: OriginalPins) -> str:
        """The threads go back; libvirt is to be told."""
        if not runs(kept):
            return ""
        stuck = "; ".join(f"{what}: {why}" for what, why in kept.confine(fs).items())
        return stuck or "the affinity of its threads is restored"


class ConfigurationRestore(GuestRestore[ConfiguredGuest]):
    """Takes what is ours out of guests' configurations."""

    name = configured_guest.RECORD
    part_of = original.PLUGIN
    options = policy.OPTIONS
    setting_names = policy.NAMES
    parse = staticmethod(policy.parse)
    original = staticmethod(configured_guest.parse)

    def put_back(self, view: GuestsView, fs: KernelFS, kept: ConfiguredGuest) -> str:
        """See `GuestRestore`."""
        clean_guest(view.connection, kept)
        return ""
