# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose CPUs are isolated, from which guests, and what verify says where nothing is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.isolated_host import FakeIrqbalance, IsolatedHost, threads_follow
from tests.unit.machines import guest
from tests.unit.machines import machine as desktop
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.guests.manager import Claim
from tuned_virt.guests.tracker import TrackedGuest
from tuned_virt.kernel import cpuset
from tuned_virt.libvirt_api.connection import Domain
from tuned_virt.model.guest import Guest
from tuned_virt.model.guest.model import UserPins
from tuned_virt.model.pins import Pins
from tuned_virt.placement import Placement, PlacementKind, for_guests, plan
from tuned_virt.plugins.vm_pinning import policy
from tuned_virt.plugins.vm_pinning.held_placements import HeldPlacement
from tuned_virt.plugins.vm_pinning.host_settings import HostSettings
from tuned_virt.plugins.vm_pinning.isolation.controller import HostIsolation, IsolationTuner

DOCS = Path(__file__).parents[4] / "docs"


class Machine:
    """A host with guests whose processes are below 100."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.host = IsolatedHost(folder / "root", patch)
        threads_follow(self.host, patch)
        originals, journal = Originals(folder, "boot"), Journal(folder / "journal")
        tuner = IsolationTuner(FakeIrqbalance(None))
        isolation = HostIsolation(self.host, originals, journal, tuner)
        self.settings = HostSettings(self.host, originals, journal, isolation)
        self.seen: dict[str, TrackedGuest] = {}
        self.held: dict[str, HeldPlacement] = {}
        self.claims: dict[str, Claim[policy.PinningPolicy]] = {}

    def guest(self, name: str, pid: int, **more: object) -> None:
        guest = Guest(name, name, **more)  # type: ignore[arg-type]
        domain = Domain(name, pid, name, "", None)
        self.seen[name] = TrackedGuest(domain, name, pid, 20, guest, "", 0.0, True)
        self.host.task(pid, "qemu-system-x86", "0-7", f"/machine.slice/{name}")

    def placed(self, name: str, kind: PlacementKind, cpus: str, **options: str) -> None:
        vcpus = dict(enumerate(cpus.split()))
        place = Placement(name, name, kind, (0,), vcpus, "0-1", {}, None, "")
        pid = self.seen[name].pid
        self.held[name] = HeldPlacement(name, name, name, name, pid, place, Pins(vcpus))
        self.claims[name] = Claim(name, policy.parse(options))

    def adjust(self) -> None:
        self.settings.adjust(self.claims, self.held, self.seen, False)

    def affinity(self, pid: int) -> str:
        text = self.host.text(f"proc/{pid}/task/{pid}/status")
        return text.rpartition("Cpus_allowed_list:")[2].strip()

    @property
    def left(self) -> set[str]:
        return set(self.host.units.values())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    yield Machine(tmp_path, monkeypatch)


def test_only_dedicated_guests_that_ask_isolate_and_the_last_one_ends_it(machine: Machine) -> None:
    for number, name in enumerate(("gaming", "second", "floats", "asks-not"), 10):
        machine.guest(name, number)
    machine.placed("gaming", PlacementKind.DEDICATED, "4 5", isolation="host+irqs")
    machine.placed("second", PlacementKind.DEDICATED, "6", isolation="host")
    machine.placed("floats", PlacementKind.SHARED, "0-3", isolation="host")
    machine.placed("asks-not", PlacementKind.DEDICATED, "7")
    machine.adjust()
    assert machine.left == {"0-3,7"}
    assert machine.host.text("proc/irq/24/smp_affinity_list") == "0-3,6-7"
    del machine.claims["gaming"]
    machine.adjust()
    assert machine.left == {"0-5,7"}
    assert machine.host.text("proc/irq/24/smp_affinity_list") == "0-7"
    machine.held["second"] = replace(machine.held["second"], observed=True)
    machine.adjust()
    assert machine.left == {""}
    assert not machine.settings.due


def test_idle_siblings_are_isolated_too(machine: Machine) -> None:
    for cpu in range(8):
        path = f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        machine.host.put(path, f"{cpu % 4},{cpu % 4 + 4}")
    machine.guest("gaming", 10)
    machine.placed("gaming", PlacementKind.DEDICATED, "2 3", isolation="host", smt="isolate")
    machine.adjust()
    assert machine.left == {"0-1,4-5"}


def test_the_recipe_for_a_desktop_isolates_its_one_guest(machine: Machine) -> None:
    """docs/recipes.md: without XML, on a CPU of eight cores with one cache and four guests."""
    recipe = (DOCS / "recipes.md").read_text().partition("## One isolated guest")[2]
    lines = re.findall(r"^    vm_(\w+)=(\S+)$", recipe.partition("\n## ")[0], re.MULTILINE)
    options = dict(lines)
    asked = policy.parse(options)
    assert asked.isolation is policy.Isolation.HOST_IRQS
    host = desktop(nodes=1, cores=8, threads=2, llcs=1)
    guests = [guest("gaming", 8), *(guest(f"small{number}", 4) for number in range(3))]
    made = plan(for_guests(host, guests), guests, asked.placement, {})
    placed = {one.guest: one for one in made.placements}
    assert placed["gaming"].kind is PlacementKind.DEDICATED
    own = {int(cpus) for cpus in placed["gaming"].vcpus.values()}
    assert {cpu ^ 1 for cpu in own} == own, "whole cores"
    assert not own & {0, 1}, "the first core is the desktop's"
    others = [cpus for one in guests[1:] for cpus in placed[one.name].vcpus.values()]
    assert others
    assert not own & set().union(*map(cpuset.parse, others))
    machine.host.put("sys/devices/system/cpu/online", "0-15")
    machine.host.task(1, "systemd", "0-15", "/init.scope")
    machine.guest("gaming", 10)
    machine.placed("gaming", PlacementKind.DEDICATED, " ".join(map(str, sorted(own))), **options)
    machine.adjust()
    assert machine.left == {cpuset.text(set(range(16)) - own)}


def test_guests_that_nobody_has_pinned_are_kept_off_and_no_others(machine: Machine) -> None:
    machine.guest("gaming", 10)
    machine.guest("plain", 11)
    machine.guest("owners", 12, owned=UserPins(vcpus={0: frozenset({5})}))
    machine.guest("nova", 13, manager="OpenStack Nova")
    machine.placed("gaming", PlacementKind.DEDICATED, "4 5", isolation="host")
    machine.adjust()
    assert [machine.affinity(pid) for pid in (10, 11, 12, 13)] == ["0-7", "0-3,6-7", "0-7", "0-7"]
    machine.settings.spare([machine.seen["plain"]])
    assert machine.affinity(11) == "0-7"
    machine.adjust()
    machine.settings.restore()
    assert machine.affinity(11) == "0-7"
    assert machine.left == {""}


def test_verify_says_nothing_where_nothing_is_asked_and_that_no_guest_is_dedicated(
    machine: Machine,
) -> None:
    machine.guest("floats", 10)
    machine.placed("floats", PlacementKind.SHARED, "0-3")
    machine.adjust()
    assert not list(machine.settings.findings(machine.claims.values()))
    machine.placed("floats", PlacementKind.SHARED, "0-3", isolation="host")
    machine.adjust()
    [line] = machine.settings.findings(machine.claims.values())
    assert line.text == "vm_isolation: no guest has dedicated CPUs to isolate"
