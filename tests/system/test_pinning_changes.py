# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to placed guests while they run: hotplug, resume, another one's stop, a new name."""

from __future__ import annotations

import os
import uuid as uuids
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.libvirtd import GUEST, Libvirtd
from tests.pinners import Pinner, affinities, on_cpu_1, pinned, pinning
from tests.sandbox import wait_for
from tuned_virt.core.engine import Result
from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Host
from tuned_virt.placement import Placement, PlacementPlan, PlacementPolicy

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="pins need two CPUs to differ")

LIVE = 1
"""VIR_DOMAIN_AFFECT_LIVE."""

ACPI = "<features><acpi/></features>"
HOTPLUG_MEMORY = f"""{ACPI}<maxMemory slots='2' unit='MiB'>512</maxMemory>
<cpu><numa><cell id='0' cpus='0' memory='128' unit='MiB'/></numa></cpu>"""
DIMM = "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>"
RNG = "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"


@pytest.fixture(scope="session", autouse=True)
def ksm_stopped() -> None:
    """These guests need nothing of KSM: it is left alone."""


class Planner:
    """Puts guests on CPU 1, what may move on CPU 0, and remembers what it was asked."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def __call__(
        self,
        host: Host,
        guests: Sequence[Guest],
        policies: Mapping[str, PlacementPolicy],
        current: Mapping[str, Placement],
    ) -> PlacementPlan:
        self.sizes += [(len(guest.online), guest.memory) for guest in guests]
        plan = on_cpu_1(host, guests, policies, current)
        moved = [
            pinned(guest, "0", "0")
            if policies[guest.uuid].rebalance
            else next(one for one in plan.placements if one.uuid == guest.uuid)
            for guest in guests
            if guest.uuid in policies
        ]
        kept = [current.get(one.uuid, one) if one.vcpus else one for one in moved]
        free = [policies[one.uuid].rebalance > 0 for one in moved]
        return PlacementPlan(tuple(m if may else k for m, k, may in zip(moved, kept, free)), ())


def vcpus(libvirtd: Libvirtd, name: str) -> list[str]:
    """Where each vCPU may run."""
    found = affinities(libvirtd.guest_pid(name))
    return [cpus for thread, cpus in found.items() if thread.startswith("CPU ")]


def create(connection: Any, name: str, extra: str = "", flags: int = 0, vcpu: str = "") -> Any:
    xml = GUEST.format(name=name, uuid=uuids.uuid4(), mib=128, extra_xml=extra)
    return connection.createXML(xml.replace("<vcpu>1</vcpu>", vcpu or "<vcpu>1</vcpu>"), flags)


def assert_passed(pinner: Pinner) -> None:
    assert [one.result for one in pinner.verify()] == [Result.PASSED], pinner.verify()


@pytest.mark.parametrize(("rebalance", "after"), [("never", "1"), ("on_stop", "0")])
def test_another_guests_stop(
    libvirtd: Libvirtd, connection: Any, rebalance: str, after: str
) -> None:
    with pinning(libvirtd.uri, Planner(), rebalance=rebalance) as pinner:
        stays = create(connection, "stays").UUIDString()
        goes = create(connection, "goes")
        pinner.wait_pinned(stays, goes.UUIDString())
        assert vcpus(libvirtd, "stays") == ["1"]
        goes.destroy()
        wait_for("forgotten", lambda: len(pinner.held()) == 1)
        wait_for(f"on {after}", lambda: vcpus(libvirtd, "stays") == [after])
        create(connection, "new")
        wait_for("placed", lambda: len(pinner.held()) == 2)
        assert vcpus(libvirtd, "stays") == [after], "a start moves nobody"
        assert pinner.off()
        assert vcpus(libvirtd, "stays") == ["0-1"]


def test_a_vcpu_that_is_plugged_in(libvirtd: Libvirtd, connection: Any) -> None:
    with pinning(libvirtd.uri) as pinner:
        guest = create(connection, "grows", vcpu="<vcpu current='1'>2</vcpu>")
        pinner.wait_pinned(guest.UUIDString())
        guest.setVcpusFlags(2, LIVE)
        wait_for("both pinned", lambda: vcpus(libvirtd, "grows") == ["1", "1"])
        assert pinner.off()
        assert vcpus(libvirtd, "grows") == ["0-1", "0-1"]


def test_memory_that_is_plugged_in_is_planned_for(libvirtd: Libvirtd, connection: Any) -> None:
    planner = Planner()
    with pinning(libvirtd.uri, planner) as pinner:
        guest = create(connection, "grows", HOTPLUG_MEMORY)
        pinner.wait_pinned(guest.UUIDString())
        assert planner.sizes[-1] == (1, 128 << 10)
        guest.attachDeviceFlags(DIMM, LIVE)
        wait_for("planned for", lambda: planner.sizes[-1] == (1, 256 << 10))
        assert vcpus(libvirtd, "grows") == ["1"]
        assert_passed(pinner)


def test_a_device_that_is_attached_moves_nothing(libvirtd: Libvirtd, connection: Any) -> None:
    with pinning(libvirtd.uri) as pinner:
        guest = create(connection, "wired", ACPI)
        pinner.wait_pinned(guest.UUIDString())
        guest.attachDeviceFlags(RNG, LIVE)
        wait_for("attached", lambda: "<rng" in guest.XMLDesc(0))
        assert_passed(pinner)
        assert vcpus(libvirtd, "wired") == ["1"]


def test_a_guest_that_starts_paused_is_pinned_and_stays_so(
    libvirtd: Libvirtd, connection: Any
) -> None:
    with pinning(libvirtd.uri) as pinner:
        guest = create(connection, "paused", flags=1)
        pinner.wait_pinned(guest.UUIDString())
        guest.resume()
        guest.suspend()
        guest.resume()
        assert_passed(pinner)
        assert vcpus(libvirtd, "paused") == ["1"]


def test_a_renamed_guest_is_known_by_its_new_name(libvirtd: Libvirtd, connection: Any) -> None:
    xml = GUEST.format(name="old", uuid=uuids.uuid4(), mib=16, extra_xml="")
    guest = connection.defineXML(xml)
    with pinning(libvirtd.uri, persist="both") as pinner:
        before = guest.XMLDesc(2)
        guest.create()
        pinner.wait_pinned(guest.UUIDString())
        wait_for("configured", lambda: "<vcpupin" in guest.XMLDesc(2))
        guest.destroy()
        guest.rename("new")
        guest.create()
        wait_for("held anew", lambda: [one.device for one in pinner.held().values()] == ["new"])
        pinner.wait_pinned(guest.UUIDString())
        assert_passed(pinner)
        assert pinner.off()
        assert guest.XMLDesc(2) == before.replace("<name>old<", "<name>new<")
