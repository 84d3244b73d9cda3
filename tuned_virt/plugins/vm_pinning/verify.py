# SPDX-License-Identifier: GPL-2.0-or-later
"""What verify says: each guest's threads and memory against the placement that was applied.

Threads are read where the kernel has them, and libvirt is asked for the vCPUs' affinity besides;
neither a hung libvirtd nor a guest of terabytes may hold up TuneD's D-Bus, so both have a budget.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from tuned_virt.core.engine import Finding, Result
from tuned_virt.guests.manager import Claim
from tuned_virt.kernel import numa_maps, timeouts
from tuned_virt.kernel.cpuset import text as cpus_text
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.libvirt_api import guest_pins as libvirt
from tuned_virt.libvirt_api.errors import Unanswered
from tuned_virt.libvirt_api.worker import GuestsView, LibvirtWorker
from tuned_virt.model.guest import printable, qemu_threads
from tuned_virt.model.pins import Pins
from tuned_virt.placement import WALLS, PlacementKind
from tuned_virt.plugins.vm_pinning.held_placements import HeldPlacement
from tuned_virt.plugins.vm_pinning.original import PLUGIN
from tuned_virt.plugins.vm_pinning.pinner import words
from tuned_virt.plugins.vm_pinning.policy import PinningPolicy

MEMORY = 0.3
"""Seconds in which guests' memory is read by node; those whose turn does not come are said."""

ENOUGH = 0.95
"""Part of a guest's memory that has to be on its nodes behind a wall."""

Pair = tuple[Claim[PinningPolicy], "HeldPlacement | None"]


class PinningVerifier:
    """Compares guests with what is held. For TuneD's thread."""

    def __init__(self, fs: KernelFS) -> None:
        self._fs = fs

    def findings(self, pairs: Iterable[Pair], asked: LibvirtWorker) -> Iterator[Finding]:
        """One line a guest."""
        known = list(pairs)
        told, remark = self._told([held for _, held in known if held and held.placed], asked)
        deadline = time.monotonic() + MEMORY
        for claim, held in known:
            if held is None:
                yield _finding(Result.NOTE, claim.device, "is not placed yet")
            elif held.placed:
                late = time.monotonic() >= deadline
                local, unread = (None, "") if late else self._local(held)
                yield self._compare(held, told.get(held.uuid), local, unread)
            else:
                yield _left(held)
            if held is not None and held.placement.ignored:
                text = f"its metadata does not count: {printable(held.placement.ignored)}"
                yield _finding(Result.NOTE, claim.device, text)
        if remark:
            yield Finding(
                Result.NOTE, f"{PLUGIN}: {remark}: only the affinity of its threads is verified"
            )

    def drifted(self, held: HeldPlacement) -> bool:
        """Whether threads are elsewhere than they were pinned."""
        return any(self._differences(held, None))

    def _told(
        self, pinned: list[HeldPlacement], asked: LibvirtWorker
    ) -> tuple[Mapping[str, Mapping[int, str]], str]:
        """What libvirt's `vcpus()` says, by UUID; and why not, where it does not say all."""
        deadline = time.monotonic() + timeouts.VERIFY_GUESTS
        found: dict[str, Mapping[int, str]] = {}

        def ask(view: GuestsView) -> None:
            for held in pinned:
                active = view.guests.get(held.uuid)
                if active is not None and time.monotonic() < deadline:
                    found[held.uuid] = libvirt.affinity(view.connection, active)

        try:
            if pinned:
                asked.ask(ask, timeouts.VERIFY_GUESTS)
        except Unanswered as error:
            return dict(found), str(error)
        return found, ""

    def _differences(self, held: HeldPlacement, told: Mapping[int, str] | None) -> Iterator[str]:
        if held.pid:
            try:
                now = qemu_threads.affinity(self._fs, held.pid)
                yield from qemu_threads.elsewhere(now, held.placement.pins())
            except KernelFileError as error:
                yield str(error)
        if told is not None:
            vcpus = {target: {target.number: cpus} for target, cpus in Pins(told).items()}
            for text in qemu_threads.elsewhere(vcpus, held.placement.pins()):
                yield f"{text} by libvirt"

    def _compare(
        self,
        held: HeldPlacement,
        told: Mapping[int, str] | None,
        local: float | None,
        unread: str,
    ) -> Finding:
        differing = list(dict.fromkeys(self._differences(held, told)))
        memory = held.placement.memory
        wall = memory is not None and memory.mode in WALLS
        if wall and local is not None and local < ENOUGH:
            differing.append(f"{local:.0%} of its memory on node {_nodes(held)}")
        if unread and wall:
            differing.append(unread)
        if differing:
            found = ", ".join(differing)
            return _finding(
                Result.FAILED, held.device, f"'{PLUGIN}' = '{found}', expected '{_place(held)}'"
            )
        if held.ungranted:
            return _ungranted(held, _place(held))
        text = f"'{PLUGIN}' = '{_place(held)}'"
        if local is not None:
            text += f", {local:.0%} of its memory is there"
        said = "; ".join(filter(None, [text, unread, held.remark, held.configuration]))
        return _finding(Result.PASSED, held.device, said)

    def _local(self, held: HeldPlacement) -> tuple[float | None, str]:
        """Which part of a guest's memory is on its nodes; and why that cannot be told, or ""."""
        if not (held.pid and held.placement.nodes):
            return None, ""
        try:
            nodes = numa_maps.by_node(numa_maps.read(self._fs, held.pid))
        except KernelFileError as error:
            return None, f"the location of its memory: {error}"
        return numa_maps.share(nodes, frozenset(held.placement.nodes)), ""


def _place(held: HeldPlacement) -> str:
    placed = held.placement
    pins = words(Pins(placed.vcpus, placed.emulator))
    return f"{placed.kind.value} on node {_nodes(held)}: {pins}"


def _nodes(held: HeldPlacement) -> str:
    return cpus_text(held.placement.nodes)


def _left(held: HeldPlacement) -> Finding:
    if held.failed:
        why = "; ".join(f"{what}: {reason}" for what, reason in held.failed.items())
        return _finding(Result.FAILED, held.device, f"'{PLUGIN}' = 'original', {why}")
    placed = held.placement
    if held.observed:
        text = f"observed only, would be {placed.kind.value} on node {cpus_text(placed.nodes)}"
        return _finding(Result.NOTE, held.device, text)
    if held.ungranted:
        return _ungranted(held, "not placed" if not placed.vcpus else "not placed yet")
    if held.later:
        text = f"when it starts again, {placed.kind.value} on node {_nodes(held)} (persist=config)"
        told = "; ".join(filter(None, [text, held.configuration]))
        return _finding(Result.NOTE, held.device, told)
    kind = "its owner's" if placed.kind is PlacementKind.OWNER else "not placed"
    why = printable(placed.why).removeprefix(f"{kind}: ")
    return _finding(Result.NOTE, held.device, f"{kind}: {why}")


def _ungranted(held: HeldPlacement, found: str) -> Finding:
    """What was asked for and is not so: never passed over."""
    placed = held.placement
    why = printable(placed.why).removeprefix("not placed: ")
    text = f"'{PLUGIN}' = '{found}', expected '{placed.ungranted}' (not granted: {why})"
    return _finding(Result.FAILED, held.device, text)


def _finding(result: Result, device: str, text: str) -> Finding:
    return Finding(result, f"device {device}: {text}")
