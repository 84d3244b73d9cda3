# SPDX-License-Identifier: GPL-2.0-or-later
"""vm_pinning without TuneD: its manager on a private libvirtd, and a planner that tests tell."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.sandbox import wait_for
from tuned_virt.core.device_filter import device
from tuned_virt.core.engine import Finding
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.guests.manager import Claim, GuestController, GuestManager, Run
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api.connection import Domain
from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Host
from tuned_virt.placement import (
    MemoryPlacement,
    Placement,
    PlacementKind,
    PlacementPlan,
    PlacementPolicy,
)
from tuned_virt.plugins.vm_pinning import held_placements
from tuned_virt.plugins.vm_pinning.controller import PinningController
from tuned_virt.plugins.vm_pinning.placement_controller import PlacementController
from tuned_virt.plugins.vm_pinning.plugin import PinningTuner
from tuned_virt.plugins.vm_pinning.policy import PinningPolicy

Planner = Callable[
    [Host, Sequence[Guest], Mapping[str, PlacementPolicy], Mapping[str, Placement]], PlacementPlan
]


def on_cpu_1(
    host: Host,
    guests: Sequence[Guest],
    policies: Mapping[str, PlacementPolicy],
    current: Mapping[str, Placement],
) -> PlacementPlan:
    """vCPUs on CPU 1, all else on CPU 0: this machine has one node, where `node` changes nothing.

    What has an owner keeps it, as the planner has it.
    """
    placed = [
        owners(guest) or pinned(guest, "1", "0") for guest in guests if guest.uuid in policies
    ]
    return PlacementPlan(tuple(placed), ())


def owners(guest: Guest) -> Placement | None:
    """The placement of a guest with pins of its owner's."""
    if not (guest.owned.vcpus or guest.owned.emulator):
        return None
    return Placement(
        guest.name, guest.uuid, PlacementKind.OWNER, (), {}, "", {}, None, "its owner's pins"
    )


def pinned(guest: Guest, vcpus: str, emulator: str) -> Placement:
    """A guest pinned inside node 0."""
    return Placement(
        guest.name,
        guest.uuid,
        PlacementKind.SHARED,
        (0,),
        dict.fromkeys(guest.online, vcpus),
        emulator,
        dict.fromkeys(guest.iothreads, emulator),
        MemoryPlacement("move", "0"),
        "a test wants it there",
    )


class Pinner:
    """What TuneD's plugin does, for all guests: claims them as they come. Files in `folder`."""

    def __init__(self, uri: str, folder: Path, plan: Planner = on_cpu_1, **options: str) -> None:
        self.uri = uri
        self.folder = folder
        self._plan = plan
        self.file = folder / "vm_pinning.json"
        self.baseline = Originals(folder)
        self.tuner = _Tuner(self)
        self.policy: PinningPolicy = self.tuner.parse({"uri": uri, **options})
        self.manager: GuestManager[PinningPolicy] = GuestManager(self.tuner, uri)
        self._claims: dict[Run, Claim[PinningPolicy]] = {}
        self._applied = threading.Lock()
        self._off = False

    def start(self) -> None:
        """As when the profile is applied."""
        self._off = False
        running = self.manager.attach(self)
        self._claims = self._wanted(running)
        self.manager.claim(self._claims)
        self.manager.settle()

    def off(self) -> bool:
        """As tuned-adm off; whether all was put back at once."""
        with self._applied:
            self._off = True
        self.manager.release()
        done = self.manager.settle()
        self.manager.detach(self)
        return done

    def guests_changed(
        self, guests: Mapping[str, Domain]
    ) -> Mapping[Run, Claim[PinningPolicy]] | None:
        """See `manager.GuestListener`."""
        with self._applied:
            self._claims = self._wanted(guests)
            return None if self._off else self._claims

    def _wanted(self, guests: Mapping[str, Domain]) -> dict[Run, Claim[PinningPolicy]]:
        return {one.run: Claim(device(one.name, one.uuid), self.policy) for one in guests.values()}

    def guests(self) -> PinningController:
        """What carries it out."""
        return PinningController(
            self.uri,
            KernelFS(),
            self.baseline,
            Journal(self.folder / "journal"),
            PlacementController(KernelFS(), self._plan),
            self.file,
        )

    def held(self) -> Mapping[str, held_placements.HeldPlacement]:
        """What is held, by UUID."""
        return {one.uuid: one for one in held_placements.load(self.uri, self.file).values()}

    def wait_pinned(self, *uuids: str, seconds: float = 20) -> None:
        """Until guests are held with pins."""
        wait_for(
            "guests pinned",
            lambda: all(uuid in (held := self.held()) and held[uuid].pins for uuid in uuids),
            seconds,
        )

    def verify(self) -> list[Finding]:
        """What verify says of all guests."""
        return [*self.manager.unavailable(), *self.manager.findings(self._claims, False)]


class _Tuner(PinningTuner):
    def __init__(self, pinner: Pinner) -> None:
        super().__init__(pinner.file)
        self._pinner = pinner

    def guests(self, uri: str) -> GuestController[PinningPolicy]:
        return self._pinner.guests()


@contextlib.contextmanager
def pinning(uri: str, plan: Planner = on_cpu_1, **options: str) -> Iterator[Pinner]:
    """A pinner that has begun, and is off at the end."""
    with tempfile.TemporaryDirectory() as folder:
        pinner = Pinner(uri, Path(folder), plan, **options)
        pinner.start()
        try:
            yield pinner
        finally:
            pinner.off()


def affinities(pid: int) -> dict[str, str]:
    """Each thread of a process by name and number → Cpus_allowed_list."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/task"):
        folder = Path(f"/proc/{pid}/task/{name}")
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            allowed = re.search(r"^Cpus_allowed_list:\s*(\S+)$", _text(folder / "status"), re.M)
            assert allowed
            found[f"{_text(folder / 'comm').strip()} {name}"] = allowed[1]
    return found


def _text(file: Path) -> str:
    return file.read_text()
