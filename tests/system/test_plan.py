# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt plan for this host, with guests of a real libvirtd; this machine has one node."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.libvirtd import Libvirtd
from tests.pinners import affinities, pinning
from tuned_virt.cli import plan, plan_text, planning_input, processes
from tuned_virt.cli.plan_text import GuestChange
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.guest import read_guest
from tuned_virt.placement import Placement, PlacementKind

pytestmark = [
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="pins need two CPUs to differ"),
    pytest.mark.usefixtures("no_guests_left"),
]

OWNED = "<cputune><vcpupin vcpu='0' cpuset='1'/></cputune>"


@pytest.fixture(scope="session", autouse=True)
def ksm_stopped() -> None:
    """These guests need nothing of KSM: it is left alone."""


def planned(libvirtd: Libvirtd, uuid: str) -> tuple[Placement, list[GuestChange]]:
    """A guest's placement, and what that changes."""
    gathered = planning_input.here(KernelFS(), libvirtd.uri)
    guests = {guest.uuid: guest for guest in gathered.guests}
    assert guests[uuid].resident, "root sees where its memory is"
    made = plan.planned(gathered, plan.PlanRequest())
    [one] = [one for one in made.placements if one.uuid == uuid]
    return one, list(plan_text.changes(guests[uuid], one, gathered.now[uuid]))


def test_only_threads_that_are_elsewhere_change(libvirtd: Libvirtd) -> None:
    uuid = libvirtd.start_guest("web1")
    placed, some = planned(libvirtd, uuid)
    assert (placed.kind, some) == (PlacementKind.SHARED, [])
    pid = libvirtd.guest_pid("web1")
    vcpu = next(
        task
        for task in os.listdir(f"/proc/{pid}/task")
        if open(f"/proc/{pid}/task/{task}/comm").read().startswith("CPU 0/")
    )
    subprocess.run(["taskset", "-p", "1", vcpu], check=True, stdout=subprocess.DEVNULL)
    everywhere = set(affinities(os.getpid()).values()).pop()
    placed, some = planned(libvirtd, uuid)
    assert some == [GuestChange("vCPU", 0, "0", everywhere)]
    [line] = plan_text.commands(placed, some)
    assert line == f"virsh vcpupin web1 0 {everywhere} --live"


def test_an_owners_guest_is_shown_and_a_tagged_one_is_ours(libvirtd: Libvirtd) -> None:
    owned = libvirtd.start_guest("db1", extra_xml=OWNED)
    placed, some = planned(libvirtd, owned)
    assert (placed.kind, placed.vcpus, some) == (PlacementKind.OWNER, {0: "1"}, [])
    with pinning(libvirtd.uri) as pinner:
        uuid = libvirtd.start_guest("web1")
        pinner.wait_pinned(uuid)
        gathered = planning_input.here(KernelFS(), libvirtd.uri)
        assert gathered.current[uuid].vcpus == {0: "1"}, "by the tag: no record of it is here"
        assert owned not in gathered.current


def test_processes_say_what_libvirt_would(libvirtd: Libvirtd) -> None:
    uuid = libvirtd.start_guest("web1", mib=32, extra_xml="<iothreads>2</iothreads>")
    told = processes.documents(KernelFS(), set())
    guest = read_guest(told["web1"][1])
    with libvirtd.connection() as connection:
        known = read_guest(connection.lookupByUUIDString(uuid).XMLDesc(0))
    assert (guest.uuid, guest.online, guest.memory) == (uuid, known.online, known.memory)
    assert list(guest.iothreads) == list(known.iothreads)
    assert guest.owned == known.owned
