# SPDX-License-Identifier: GPL-2.0-or-later
"""What `tuned-virt metrics` collects: thin readers of what status, guests, verify and audit read.

Each gives samples, and what it could not read. What is not there is no error and gives no samples.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence

from tuned_virt.audit.rule import Severity
from tuned_virt.cli import audit, audit_input, findings, guest_rows, ksm_table, vcpu_waits
from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.daemon import Daemon, NotRunning
from tuned_virt.cli.guest_rows import GuestRow, SeenGuest
from tuned_virt.cli.vcpu_waits import VcpuWaits
from tuned_virt.core import active_profile
from tuned_virt.core.options import SYSTEM
from tuned_virt.core.originals import Originals, OriginalsError
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.worker import ask_once
from tuned_virt.metrics import guests, memory, tuning
from tuned_virt.metrics.family import FamilySamples
from tuned_virt.metrics.guests import GuestValues
from tuned_virt.metrics.memory import KsmValues
from tuned_virt.metrics.tuning import ProfileValues
from tuned_virt.model import topology
from tuned_virt.model.guest import printable
from tuned_virt.placement import PlacementKind
from tuned_virt.plugins import ksm
from tuned_virt.plugins.hugepages_numa import pools
from tuned_virt.plugins.ksm import sampler
from tuned_virt.plugins.vm_pinning import held_placements

UUID = 36
"""Characters of a UUID."""

SILENT = "libvirt does not answer"
HIDDEN = "/proc does not show all processes, so guests may be missing"

SLOW = 3600.0
"""Seconds for which a verification and an audit hold. Each verification writes its lines into
TuneD's log, which keeps 200 KiB, and an audit asks libvirt for the XML of every guest."""


@dataclass(frozen=True)
class CollectorReading:
    """What a collector has read, and what it could not, each with the reason.

    soon  whether it may be different soon, so that it does not hold as long as others
    """

    samples: tuple[FamilySamples, ...] = ()
    errors: tuple[str, ...] = ()
    soon: bool = False


@dataclass(frozen=True)
class Collector:
    """A part of the collection.

    every    seconds for which a reading holds; 0: it is read each time
    version  what a reading that holds depends on, besides its age
    """

    name: str
    read: Callable[[KernelFS], CollectorReading]
    every: float = 0.0
    version: Callable[[], str] = str


# --- guests ---------------------------------------------------------------------------------------


def read_guests(fs: KernelFS) -> CollectorReading:
    """Every guest's process, by one pass over /proc."""
    errors = [] if fs.sees_all_processes() else [HIDDEN]
    record = _record_error()
    seen = {one.pid: one for one in guest_rows.find(fs)}
    waits = vcpu_waits.read(fs, [(one.pid, one.threads) for one in seen.values()])
    rows = guest_rows.rows(fs, list(seen.values()), VcpuWaits(0.0), waits)
    values = []
    for row in rows:
        found, problems = _guest(fs, row, seen[row.pid], waits, known=not record)
        values.append(found)
        errors += [f"guest {row.guest}: {one}" for one in problems]
    return CollectorReading(tuple(guests.samples(values)), (*errors, *record))


def _record_error() -> tuple[str, ...]:
    """Why it is not known what vm_pinning holds."""
    try:
        held_placements.load(SYSTEM)
    except KernelFileError as error:
        return (str(error),)
    return ()


def _guest(
    fs: KernelFS, row: GuestRow, seen: SeenGuest, waits: VcpuWaits, known: bool
) -> tuple[GuestValues, list[str]]:
    """A guest's values, and what cannot be read of it; `known`: what vm_pinning holds is."""
    waited = waits.waited.get(row.pid)
    merged, profit, ksm_error = _merged(fs, row.pid)
    delay_error = "" if row.delay_error == vcpu_waits.NOT_COUNTED else row.delay_error
    values = GuestValues(
        guest=row.guest,
        uuid=printable(row.uuid)[:UUID],
        pid=row.pid,
        placement=PlacementKind(row.kind) if known else None,
        nodes=row.nodes,
        vcpus=len(row.vcpus) or None,
        waited=sum(waited.values()) / 1e9 if waited else None,
        memory={node: mib << 20 for node, mib in row.by_node.items()},
        local=None if row.local is None else row.local / 100,
        drift=len(row.drift) if seen.held and not row.threads_error else None,
        ungranted=bool(row.ungranted) if seen.held else None,
        ksm_merged=merged,
        ksm_profit=profit,
    )
    errors = (row.threads_error, row.memory_error, delay_error, ksm_error)
    return values, [one for one in errors if one]


def _merged(fs: KernelFS, pid: int) -> tuple[float | None, float | None, str]:
    """Bytes that KSM has merged and saves of a guest; and why that cannot be told."""
    try:
        _, merged, profit = ksm_table.sizes_of(pid, fs.read_optional)
    except KernelFileError as error:
        return None, None, str(error)
    return _bytes(merged), _bytes(profit), ""


def _bytes(mib: float | None) -> int | None:
    return None if mib is None else round(mib * 2**20)


# --- the host -------------------------------------------------------------------------------------


def read_ksm(fs: KernelFS) -> CollectorReading:
    """KSM; nothing in a kernel without it."""
    number = functools.partial(_number, fs)
    run = number("run")
    if run is None:
        return CollectorReading()
    page = topology.page_size()
    shared = number("pages_shared")
    thread = sampler.ksmd(fs)
    values = KsmValues(
        run=run,
        saved=((number("pages_sharing") or 0) + (number("ksm_zero_pages") or 0)) * page,
        shared=None if shared is None else shared * page,
        profit=number("general_profit"),
        cpu=sampler.cpu_seconds(fs, thread) if thread else None,
        scans=number("full_scans"),
    )
    return CollectorReading(tuple(memory.of_ksm(values)))


def _number(fs: KernelFS, name: str) -> int | None:
    text = fs.read_optional(f"{ksm.FOLDER}/{name}")
    return int(text) if text and text.lstrip("-").isdecimal() else None


def read_pools(fs: KernelFS) -> CollectorReading:
    """Huge pages; nothing in a kernel without them."""
    found = pools.read(fs)
    if not found:
        return CollectorReading()
    return CollectorReading(tuple(memory.of_pools(found, pools.reserved(fs), pools.size_name)))


def read_libvirt(_fs: KernelFS) -> CollectorReading:
    """Whether libvirt answers; nothing where it is not installed or not started."""
    if binding.missing():
        return CollectorReading()
    running = ask_once(lambda view: len(view.guests))
    return CollectorReading(
        tuple(tuning.of_libvirt(running)), () if running is not None else (SILENT,)
    )


# --- the profile ----------------------------------------------------------------------------------


def read_profile(_fs: KernelFS) -> CollectorReading:
    """TuneD's active profile, when it was switched, and what is not restored yet."""
    running, profiles, errors = _active()
    pending = None
    try:
        pending = sum(len(record.pending) for record in Originals().all().values())
    except OriginalsError as error:
        errors.append(str(error))
    values = ProfileValues(running, tuple(profiles), _switched(), pending)
    return CollectorReading(tuple(tuning.of_profile(values)), tuple(errors))


def _active() -> tuple[bool, list[str], list[str]]:
    """Whether TuneD runs, its profiles, and what could not be asked."""
    try:
        daemon = Daemon()
    except NotRunning:
        return False, [], []
    try:
        return True, daemon.active_profile().split(), []
    except CouldNot as error:
        return True, [], [str(error)]


def _switched() -> float | None:
    """When TuneD last wrote its profile's name; None where there is none."""
    try:
        status = os.stat(active_profile.NAMES)
    except FileNotFoundError:
        return None
    return status.st_mtime if status.st_size > 1 else None


def switch_version() -> str:
    """Differs after each switch of profiles."""
    try:
        return str(os.stat(active_profile.NAMES).st_mtime_ns)
    except OSError:
        return ""


def read_verify(_fs: KernelFS) -> CollectorReading:
    """A verification; nothing without TuneD or an active profile. Raises CouldNot."""
    try:
        daemon = Daemon()
    except NotRunning:
        return CollectorReading(soon=True)
    if not daemon.active_profile():
        return CollectorReading(soon=True)
    verified, log = daemon.verify(ignore_missing=False)
    lines = findings.parse(log)
    results = [line.result for line in lines]
    samples = tuning.of_verify(verified, results, findings.differing(lines))
    return CollectorReading(tuple(samples), soon=not verified)


def read_audit(fs: KernelFS) -> CollectorReading:
    """An audit of this host and its guests, whose agents are not asked. Raises CouldNot.

    Without libvirt guests have no XML: they count as not checked, which is no error.
    """
    gathered, absent = audit_input.without_agents(fs), binding.missing()
    if gathered.scene.without_guests and not absent:
        raise CouldNot(gathered.scene.without_guests)
    found = audit.content(gathered)
    counts = {level.value: found["counts"][level.value] for level in Severity}
    accepted = sum(one["suppressed"] is not None for one in found["findings"])
    unread = [f"{name}: {why}" for name, why in gathered.unreadable if name == "host" or not absent]
    return CollectorReading(
        tuple(tuning.of_audit(counts, accepted, len(found["not_checked"]))), tuple(unread)
    )


COLLECTORS: Sequence[Collector] = (
    Collector("guests", read_guests),
    Collector("ksm", read_ksm),
    Collector("hugepages", read_pools),
    Collector("libvirt", read_libvirt),
    Collector("profile", read_profile),
    Collector("verify", read_verify, SLOW, switch_version),
    Collector("audit", read_audit, SLOW),
)
