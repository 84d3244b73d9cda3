# SPDX-License-Identifier: GPL-2.0-or-later
"""What `tuned-virt recommend` looks at: this host with its guests and their use, or files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tuned_virt.audit.scene import Scene
from tuned_virt.cli import audit_input, guests, host_role, snapshot_file
from tuned_virt.cli.audit_input import AuditInput
from tuned_virt.cli.collected import HostRole
from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.guest_rows import GuestRow
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model import host_facts, topology
from tuned_virt.model.host_facts import NotKnown
from tuned_virt.model.topology import HostError
from tuned_virt.recommend.situation import Situation

HOST_MISSING = "which host is it for? give --host CAPABILITIES.xml (virsh capabilities)"


def gather(capabilities: str | None, files: list[str], saved: str | None) -> Situation:
    """Files where any are given, else this machine. Raises CouldNot for what it cannot read."""
    if not (capabilities or files or saved):
        return here(KernelFS())
    if saved and not (capabilities or files):
        return _of_snapshot(saved)
    if files and not capabilities and not saved:
        raise CouldNot(HOST_MISSING)
    return Situation(_whole(audit_input.gather(capabilities, files, saved)))


def here(fs: KernelFS) -> Situation:
    """This machine. Raises CouldNot."""
    role = host_role.read(fs)
    if _is_guest(role):
        return Situation(_inside(fs), in_guest=True, swap_in_ram=role.swap_in_ram)
    if role.manager:
        return Situation(Scene(), manager=role.manager)
    look = guests.Look(fs, None)
    scene = _whole(audit_input.here(fs))
    look.take(guests.SAMPLE)
    return Situation(scene, swap_in_ram=role.swap_in_ram, delays=_delays(look.rows))


def _of_snapshot(file: str) -> Situation:
    """The machine of a snapshot. Raises CouldNot."""
    known = snapshot_file.load(file)
    found = audit_input.audited(known.audit())
    role = known.role()
    if role is None:
        return Situation(_whole(found))
    if _is_guest(role):
        inside = Scene(found.scene.host, found.scene.facts)
        return Situation(inside, in_guest=True, swap_in_ram=role.swap_in_ram)
    if role.manager:
        return Situation(Scene(), manager=role.manager)
    rows = known.rows().value or []
    return Situation(_whole(found), swap_in_ram=role.swap_in_ram, delays=_delays(rows))


def _whole(gathered: AuditInput) -> Scene:
    """A scene of which all was read: settings for half of the guests serve nobody."""
    unreadable = [f"{name}: {why}" for name, why in gathered.unreadable]
    foreign = [f"{name}: {why}" for name, why in gathered.others]
    if unreadable:
        raise CouldNot("nothing is recommended for what cannot be read\n" + "\n".join(unreadable))
    if gathered.scene.host is None:
        raise CouldNot("this host's CPUs and memory cannot be read, so nothing is recommended")
    if foreign and not gathered.scene.guests:
        raise CouldNot("none of the guests is a KVM guest\n" + "\n".join(foreign))
    return gathered.scene


def _is_guest(role: HostRole) -> bool:
    """Raises CouldNot where systemd-detect-virt cannot be asked."""
    try:
        return role.in_guest.get()
    except NotKnown as error:
        raise CouldNot(f"whether this machine is a guest cannot be told: {error}") from error


def _inside(fs: KernelFS) -> Scene:
    try:
        return Scene(topology.read(fs), host_facts.read(fs))
    except HostError as error:
        raise CouldNot(f"this machine's CPUs and memory cannot be read: {error}") from error


def _delays(rows: Iterable[GuestRow]) -> Mapping[str, float]:
    """Of running guests, by UUID; those that cannot be read are not in it."""
    return {row.uuid: row.delay_percent for row in rows if row.delay_percent is not None}
