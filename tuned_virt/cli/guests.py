# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt guests: show where each guest is placed and why, its memory, drift and delay."""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Mapping

from tuned_virt.cli import json_output, table
from tuned_virt.cli.common import FINE, TO_REPORT
from tuned_virt.core.state_file import FOLDER, StateFile
from tuned_virt.frozen_dataclasses import asdict, dataclass
from tuned_virt.kernel import cpuset, numa_maps
from tuned_virt.kernel.cpuset import text as cpus_text
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.kernel.procfs import start_time
from tuned_virt.model.guest import printable, qemu_process, qemu_threads
from tuned_virt.model.guest.qemu_threads import QemuThreads
from tuned_virt.model.pins import EMULATOR, Part
from tuned_virt.placement import PlacementKind
from tuned_virt.plugins.vm_pinning import held_placements
from tuned_virt.plugins.vm_pinning.held_placements import HeldPlacement

LOOK = StateFile(f"{FOLDER}/guests-look.json", lambda content: dict(content["delays"]))
"""Where root's last look is kept, for the run-queue delay since then."""

COLUMNS = ("<guest", "<kind", "<node", "<vCPUs on", "local %", "<MiB by node", "delay ms")
"""They fit 80 columns: what is said in sentences comes below."""


@dataclass(frozen=True)
class GuestRow:
    """One guest.

    owner     who decides where it is: tuned-virt, its owner, or nobody
    local     percent of its memory on its nodes; by_node: node → MiB
    drift     what is not where it was put, in words
    delay_ms  how long its vCPUs waited for a CPU since the last look; None at the first
    ungranted what was requested and is not so, such as "policy=dedicated"
    memory_error  why it cannot be told where its memory is, "" where it can
    """

    guest: str
    uuid: str
    pid: int
    kind: str
    nodes: tuple[int, ...]
    vcpus: Mapping[int, str]
    owner: str
    why: str
    local: float | None
    by_node: Mapping[int, int]
    drift: tuple[str, ...]
    delay_ms: float | None
    ungranted: str = ""
    memory_error: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    json_output.add_option(parser)
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=2.0,
        metavar="SECONDS",
        help="refresh every SECONDS seconds (default: 2)",
    )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("0.1 to 3600 seconds")
    return seconds


def run(options: argparse.Namespace) -> int:
    """Show the guests; 1 where one has drifted, or does not have what was requested."""
    fs = KernelFS()
    before = _last_look()
    while True:
        now: dict[str, int] = {}
        rows = gather(fs, before, now)
        _keep_look(now)
        if options.json:
            json_output.emit("guests", {"guests": [asdict(row) for row in rows]})
        elif rows:
            table.show(COLUMNS, map(_cells, rows))
            print(*("", *map(_sentence, rows)), sep="\n")
        else:
            print("no guest is running")
        if options.watch is None:
            return TO_REPORT if any(row.drift or row.ungranted for row in rows) else FINE
        before = now
        try:
            time.sleep(options.watch)
        except KeyboardInterrupt:
            return FINE


def gather(fs: KernelFS, before: Mapping[str, int], now: dict[str, int]) -> list[GuestRow]:
    """A row for each QEMU process. Delays in ns by thread are left in `now`."""
    everything = held_placements.everything().values()
    held = {one.pid: one for found in everything for one in found if one.pid}
    processes = qemu_process.QemuProcesses(fs)
    guests = processes.guests(time.monotonic())
    processes.close()
    rows = [_row(fs, guest, held.get(guest.pid), before, now) for guest in guests]
    return sorted(rows, key=lambda row: (row.guest, row.pid))


def _row(
    fs: KernelFS,
    guest: qemu_process.QemuProcess,
    held: HeldPlacement | None,
    before: Mapping[str, int],
    now: dict[str, int],
) -> GuestRow:
    found = qemu_threads.read(fs, guest.pid)
    by_node, memory_error = _memory(fs, guest.pid)
    nodes = held.placement.nodes if held else ()
    share = numa_maps.share(by_node, frozenset(nodes)) if nodes else None
    affinity = qemu_threads.affinity(fs, guest.pid, found)
    pins = held.placement.pins() if held else qemu_threads.pins(affinity)
    kind = held.placement.kind.value if held else "unplaced"
    return GuestRow(
        guest=printable(held.name) if held else guest.name or str(guest.pid),
        uuid=guest.uuid,
        pid=guest.pid,
        kind=kind,
        nodes=nodes,
        vcpus=pins.vcpus,
        owner=_owner(held),
        why=printable(held.placement.why) if held else "not managed by vm_pinning",
        local=None if share is None else round(100 * share, 1),
        by_node={node: kib >> 10 for node, kib in by_node.items()},
        memory_error=memory_error,
        ungranted=held.ungranted if held else "",
        drift=_drift(affinity, held) if held else (),
        delay_ms=_delay(fs, guest.pid, found, before, now),
    )


def _memory(fs: KernelFS, pid: int) -> tuple[dict[int, int], str]:
    """KiB of a guest's memory by node; and why that cannot be told, "" where it can."""
    try:
        return numa_maps.by_node(numa_maps.read(fs, pid)), ""
    except KernelFileError as error:
        return {}, str(error)


def _owner(held: HeldPlacement | None) -> str:
    if held is not None and held.placed:
        return "tuned-virt"
    owned = held is not None and held.placement.kind is PlacementKind.OWNER
    return "its owner" if owned else "nobody"


def _drift(now: qemu_threads.Affinity, held: HeldPlacement) -> tuple[str, ...]:
    if held.failed:
        return tuple(f"{what}: {why}" for what, why in held.failed.items())
    if not held.placed:
        return ()
    wanted = held.placement.pins()
    return tuple(
        f"{target if target != EMULATOR else f'emulator thread {thread}'} on {cpus}, not {there}"
        for target, some in now.items()
        for thread, cpus in some.items()
        if (there := wanted.get(target, cpus)) != cpus
    )


def _delay(
    fs: KernelFS, pid: int, threads: QemuThreads, before: Mapping[str, int], now: dict[str, int]
) -> float | None:
    waited = None
    vcpus = [some for target, some in threads.items() if target.part is Part.VCPU]
    for thread in itertools.chain(*vcpus):
        key = f"{thread}/{start_time(thread)}"
        delay = qemu_threads.run_delay(fs, pid, thread)
        if delay is not None:
            now[key] = delay
            if key in before:
                waited = (waited or 0) + delay - before[key]
    return None if waited is None else round(waited / 1e6, 1)


def _last_look() -> Mapping[str, int]:
    return LOOK.load() or {}


def _keep_look(now: Mapping[str, int]) -> None:
    """Only root can; others compare with root's last look."""
    if os.geteuid() == 0:
        LOOK.save({"delays": dict(now)})


def _cells(row: GuestRow) -> tuple[object, ...]:
    cpus = set[int]().union(*map(cpuset.parse, row.vcpus.values()))
    return (
        row.guest,
        row.kind,
        cpus_text(row.nodes) or None,
        cpus_text(cpus) or None,
        row.local,
        " ".join(f"{node}:{mib}" for node, mib in row.by_node.items()) or None,
        row.delay_ms,
    )


def _sentence(row: GuestRow) -> str:
    told = "; ".join(row.drift) or row.why
    lacks = f"{row.ungranted} is not granted: " if row.ungranted else ""
    unread = f"; the location of its memory: {row.memory_error}" if row.memory_error else ""
    return f"{row.guest}: {'drift' if row.drift else row.owner}: {lacks}{told}{unread}"
