# SPDX-License-Identifier: GPL-2.0-or-later
"""vm_pinning as TuneD's plugin and `tuned-virt restore` see it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from tuned_virt import placement
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals, shared_originals
from tuned_virt.core.plan import Values
from tuned_virt.guests.manager import GuestController, GuestTuner
from tuned_virt.guests.originals import runs
from tuned_virt.guests.restore import GuestRestore
from tuned_virt.guests.tracker import TrackedGuest
from tuned_virt.kernel.files import AnyPath, KernelFS
from tuned_virt.libvirt_api.connection import Connection, Domain
from tuned_virt.libvirt_api.worker import GuestsView
from tuned_virt.model.pins import Pins
from tuned_virt.plugins.vm_pinning import (
    configured_guest,
    conflicts,
    held_placements,
    numa_balancing,
    original,
    policy,
)
from tuned_virt.plugins.vm_pinning.configured_guest import ConfiguredGuest
from tuned_virt.plugins.vm_pinning.original import OriginalPins
from tuned_virt.plugins.vm_pinning.policy import PinningPolicy


class PinningTuner(GuestTuner[PinningPolicy, OriginalPins]):
    """Guests' threads and memory, as the plugin `vm_pinning` places them."""

    name = original.PLUGIN
    options = policy.OPTIONS
    setting_names = policy.NAMES
    parse = staticmethod(policy.parse)
    original = staticmethod(original.parse)
    kernel_settings = frozenset({numa_balancing.SETTING})

    def __init__(self, file: AnyPath = held_placements.FILE) -> None:
        self._file = file

    @classmethod
    def kernel_files(cls, originals: Values) -> Values:
        """That of kernel.numa_balancing."""
        kept = originals.get(numa_balancing.SETTING)
        return {} if kept is None else {numa_balancing.FILE: kept}

    def guests(self, uri: str) -> GuestController[PinningPolicy]:
        """See `GuestTuner`."""
        from tuned_virt.plugins.vm_pinning.controller import PinningController

        return PinningController(uri, KernelFS(), shared_originals(), Journal())

    def notes(
        self, policies: Iterable[PinningPolicy], running: Collection[tuple[str, str]]
    ) -> Iterable[str]:
        """See `GuestTuner`."""
        unselected = placement.unselected((one.placement for one in policies), running)
        return [*conflicts.notes(KernelFS()), *filter(None, [unselected])]

    def files(self, policies: Iterable[PinningPolicy]) -> Values:
        """That of kernel.numa_balancing."""
        wish = numa_balancing.asked(policies)
        return {} if wish is None else {numa_balancing.FILE: str(wish)}

    def restore_kernel(self, fs: KernelFS, originals: Originals, journal: Journal) -> None:
        """kernel.numa_balancing."""
        numa_balancing.set_to(None, fs, originals, journal)

    def restored(self) -> None:
        """Nothing is held."""
        held_placements.remove(self._file)

    def put_back_run(
        self, link: Connection, active: Domain, fs: KernelFS, kept: OriginalPins
    ) -> Mapping[str, str]:
        """See `GuestTuner`."""
        from tuned_virt.plugins.vm_pinning.pinner import Pinner

        seen = TrackedGuest(active, kept.key, kept.pid, kept.start, None, "", 0.0, False)
        held = held_placements.load(kept.uri, self._file).get(kept.key)
        return Pinner(fs, Journal()).put_back(link, seen, kept, held.pins if held else Pins())

    def without_libvirt(self, fs: KernelFS, kept: OriginalPins) -> str:
        """Threads get their affinities back from the kernel. libvirt still believes in its pins
        then, so the guest stays pending until it can be told."""
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
        from tuned_virt.plugins.vm_pinning.persistent_pins import clean_guest

        clean_guest(view.connection, kept)
        return ""
