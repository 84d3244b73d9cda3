# SPDX-License-Identifier: GPL-2.0-or-later
"""vm_pinning's worker on made-up guests, with domains that record every call that changes them."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings

from tests.domains import domain
from tests.guests import guests as made_up
from tests.published.sources import LIBVIRT, VIRT_MANAGER, Source
from tests.unit.failing import fail
from tests.unit.libvirt_api.fake_binding import FakeDomain, FakeLibvirt, connect, install
from tuned_virt import placement
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals, OriginalsError
from tuned_virt.guests.manager import Claim
from tuned_virt.guests.tracker import GuestTracker, TrackedGuest
from tuned_virt.kernel import numa_maps, timeouts
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.kernel.numa_maps import Area
from tuned_virt.libvirt_api.connection import Domain
from tuned_virt.libvirt_api.worker import GuestsView
from tuned_virt.model.guest import Guest, GuestError, read_guest
from tuned_virt.model.topology import Host
from tuned_virt.placement import PlacementKind
from tuned_virt.plugins.vm_pinning import policy
from tuned_virt.plugins.vm_pinning.controller import PinningController
from tuned_virt.plugins.vm_pinning.held_placements import HeldPlacement
from tuned_virt.plugins.vm_pinning.page_migrator import PageMigration, PageMigrator
from tuned_virt.plugins.vm_pinning.placement_controller import PlacementController

UUID = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1"

CELL = """<cell id='{0}'><memory unit='KiB'>4194304</memory><distances><sibling id='0' value='{1}'/>
<sibling id='1' value='{2}'/></distances><cpus num='2'>
<cpu id='{3}' socket_id='{0}' die_id='0' core_id='0' siblings='{3}'/>
<cpu id='{4}' socket_id='{0}' die_id='0' core_id='1' siblings='{4}'/></cpus></cell>"""
HOST = (
    "<capabilities><host><cpu><arch>x86_64</arch></cpu><topology><cells num='2'>"
    + CELL.format(0, 10, 21, 0, 1)
    + CELL.format(1, 21, 10, 2, 3)
    + "</cells></topology></host></capabilities>"
)
DOMAIN = """<domain type='kvm'><name>web1</name><uuid>{uuid}</uuid><memory unit='MiB'>64</memory>
<vcpu>2</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os>{more}</domain>"""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
    libvirt = install(monkeypatch)
    libvirt.capabilities = HOST
    return libvirt


@pytest.fixture
def guests(tmp_path: Path, fake: FakeLibvirt) -> PinningController:
    return pinned_guests(tmp_path)


@pytest.fixture
def again(guests: PinningController, tmp_path: Path) -> PinningController:
    """The same in a TuneD that was killed and started again."""
    return pinned_guests(tmp_path)


def pinned_guests(folder: Path) -> PinningController:
    fs, journal = KernelFS(folder / "root"), Journal(folder / "journal")
    return PinningController("fake:///", fs, Originals(folder), journal, file=folder / "held.json")


def adjust(guests: PinningController, *running: Domain, **options: str) -> None:
    """As a guest that starts while the profile is active."""
    claims = {one.run: Claim(one.name, policy.parse(options)) for one in running}
    link = connect()
    if guests._claims is None:
        guests.adjust(GuestsView(link, {}), {})
    guests.adjust(GuestsView(link, {one.uuid: one for one in running}), claims)


def active(xml: str, uuid: str = UUID) -> Domain:
    return FakeDomain(1, "web1", xml, uuid).listed()


def pins(domain: FakeDomain) -> list[tuple[Any, ...]]:
    return [call for call in domain.calls if call[0] == "pinVcpu"]


def test_a_guest_is_tagged_then_pinned_inside_a_node(guests: PinningController) -> None:
    web = active(DOMAIN.format(uuid=UUID, more=""))
    adjust(guests, web)
    assert web.domain.calls[0][0] == "setMetadata"
    assert re.search(r'vcpus="0=0-1 1=0-1"', web.domain.calls[0][2])
    assert [call[2] for call in pins(web.domain)] == [(True, True)] * 2
    calls = len(web.domain.calls)
    adjust(guests, web)
    assert len(web.domain.calls) == calls, "what is applied is not written again"


def test_a_guest_that_has_gone_is_no_error(
    guests: PinningController, caplog: pytest.LogCaptureFixture
) -> None:
    web = active(DOMAIN.format(uuid=UUID, more=""))
    web.domain.gone = True
    adjust(guests, web)
    adjust(guests)
    assert guests.idle
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_what_is_refused_is_tried_again_and_said_once(
    guests: PinningController, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "RETRY_REFUSED", 0.0)
    web = active(DOMAIN.format(uuid=UUID, more=""))
    web.domain.refuses = {"pinVcpu"}
    for _ in range(3):
        adjust(guests, web)
    assert len(pins(web.domain)) >= 6, "two vCPUs, three times, and back"
    said = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(said) == len(set(said)) == 2, "each vCPU once"
    web.domain.refuses = set()
    adjust(guests, web)
    assert pins(web.domain)[-1][2] == (True, True)


def test_the_owner_may_opt_out(guests: PinningController) -> None:
    wish = '<metadata><policy xmlns="urn:tuned-virt-plus:policy:1" policy="none"/></metadata>'
    web = active(DOMAIN.format(uuid=UUID, more=wish))
    adjust(guests, web)
    assert web.domain.calls == []


OWNED = re.compile(r"<(vcpupin|emulatorpin|iothreadpin|numatune)\b|<vcpu [^>]*(cpuset|['\"]auto)")
"""Told from the text, not by what the planner reads of it."""

PINS = re.compile(r"""<(vcpu|iothread)pin\s+\1=['"](\d+)""")


def test_an_iothread_that_its_owner_pinned_is_left_alone(guests: PinningController) -> None:
    """Also where its thread cannot be seen."""
    pinned = "<iothreads>2</iothreads><cputune><iothreadpin iothread='1' cpuset='3'/></cputune>"
    web = active(DOMAIN.format(uuid=UUID, more=pinned))
    adjust(guests, web)
    assert [call[1] for call in web.domain.calls if call[0] == "pinIOThread"] == [2]
    assert ' iothreads="2=' in web.domain.calls[0][2], "and it is not tagged as ours"
    adjust(guests)
    assert [call[1] for call in web.domain.calls if call[0] == "pinIOThread" and call[1] != 2] == []


def check_owners_pins(guests: PinningController, text: str) -> bool:
    """Whether the owner wrote a place for something; then none of it is changed."""
    guest = read_guest(text)
    if not OWNED.search(text):
        return False
    if not guest.uuid:  # libvirt gives every guest one
        text = text.replace("<name>", f"<uuid>{UUID}</uuid><name>", 1)
    one = active(text, guest.uuid or UUID)
    adjust(guests, one, policy="dedicated", overcommit="64")
    changed = {(call[0], call[1]) for call in one.domain.calls if call[0] != "setMetadata"}
    for kind, number in PINS.findall(text):
        call = {"vcpu": "pinVcpu", "iothread": "pinIOThread"}[kind]
        assert (call, int(number)) not in changed
    assert "<emulatorpin" not in text or not any(call[0] == "pinEmulator" for call in changed)
    if "<numatune" in text or guest.owned.automatic:
        assert not any(call[0] == "setNumaParameters" for call in changed)
    if guest.owned.vcpus:
        assert [held.placement.kind for held in guests._held.values()] == [PlacementKind.OWNER]
    return True


@settings(suppress_health_check=[*HealthCheck])
@given(guest=made_up(Host.from_xml(HOST), 1))
def test_nothing_that_an_owner_pins_is_changed(guests: PinningController, guest: Guest) -> None:
    """But for pins that leave out no CPU, which say nothing."""
    everything = frozenset(range(4))
    assume(not any(everything <= cpus for cpus in guest.owned.vcpus.values()))
    adjust(guests)
    check_owners_pins(guests, domain(guest, {}))


@pytest.mark.large
@pytest.mark.parametrize("source", [LIBVIRT, VIRT_MANAGER], ids=lambda source: str(source.name))
def test_nothing_that_an_owner_pinned_is_changed(guests: PinningController, source: Source) -> None:
    if source.missing:
        pytest.skip(source.missing)
    pinned = 0
    for file in source.files(source.domains):
        with contextlib.suppress(GuestError):
            pinned += check_owners_pins(guests, file.read_text())
    assert pinned >= 3


def test_memory_that_a_kill_kept_from_following_follows_after_the_restart(
    guests: PinningController, again: PinningController, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[PageMigration] = []
    monkeypatch.setattr(PageMigrator, "add", lambda self, move: moves.append(move))
    monkeypatch.setattr(GuestTracker, "look", visible(GuestTracker.look))
    web = active(DOMAIN.format(uuid=UUID, more=""))
    adjust(guests, web)
    adjust(again, web)
    assert [(move.key, move.nodes) for move in moves] == [(moves[0].key, (0,))] * 2
    again._moved(moves[0].key, "")
    adjust(again, web)
    assert len(moves) == 2, "once it has followed, no more"
    assert not again._held[moves[0].key].follows


def visible(
    look: Callable[..., Mapping[str, TrackedGuest]],
) -> Callable[..., Mapping[str, TrackedGuest]]:
    """Guests' processes are seen here."""

    def looking(roster: GuestTracker, *arguments: Any) -> Mapping[str, TrackedGuest]:
        found = look(roster, *arguments)
        roster._seen.update({s.active.run: replace(s, pid=1, start=1) for s in found.values()})
        return {seen.key: seen for seen in roster._seen.values()}

    return looking


LOCKED = "<memoryBacking><locked/></memoryBacking>"


@pytest.mark.parametrize(("more", "told"), [(LOCKED, {0: 65536}), ("", {})])
def test_memory_that_cannot_follow_is_measured_where_its_guest_might_move(
    tmp_path: Path,
    fake: FakeLibvirt,
    monkeypatch: pytest.MonkeyPatch,
    more: str,
    told: Mapping[int, int],
) -> None:
    asked: list[Mapping[int, int]] = []
    host = [HOST]

    def plan(host: Host, guests: list[Guest], *rest: Any) -> placement.PlacementPlan:
        asked.extend(guest.resident for guest in guests)
        return placement.plan(host, guests, *rest)

    monkeypatch.setattr(numa_maps, "read", lambda *_: [Area(0, 1 << 26, 4, {0: 65536})])
    link = connect()
    monkeypatch.setattr(link, "capabilities", lambda: host[0])
    decider = PlacementController(KernelFS(tmp_path), plan)
    decider.prepare(link, {})
    web = active(DOMAIN.format(uuid=UUID, more=more))
    seen = TrackedGuest(web, "k", 1, 1, read_guest(web.xml), "", 0.0, started_under_profile=True)
    claims = {"k": Claim("web1", policy.parse({}))}
    decided = decider.decide(link, {"k": seen}, claims, {}, True)
    assert asked == [told], "what can move follows it"
    held = {"k": HeldPlacement("k", UUID, "web1", "web1", 1, decided.placements["k"])}
    decider.decide(link, {"k": seen}, claims, held, True)
    assert asked == [told, {}], "nothing may move"
    host[0] = HOST.replace("value='21'", "value='31'")
    (tmp_path / "sys/devices/system/cpu").mkdir(parents=True)
    (tmp_path / "sys/devices/system/cpu/online").write_text("0-3")
    decider.decide(link, {"k": seen}, claims, held, False)
    assert asked == [told, {}, told]
    PlacementController(KernelFS(tmp_path), plan).decide(link, {"k": seen}, claims, held, True)
    assert asked == [told, {}, told, told], "a restarted TuneD does not know"


def test_a_guest_whose_original_cannot_be_saved_is_said_and_tried_again(
    guests: PinningController, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "RETRY_REFUSED", 0.0)
    web = active(DOMAIN.format(uuid=UUID, more=""))

    def full(*_: object) -> None:
        raise OriginalsError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Originals, "keep", full)
        adjust(guests, web)
    assert web.domain.calls == []
    [held] = guests._held.values()
    assert held.failed == {"its original": "not saved"}
    adjust(guests, web)
    [held] = guests._held.values()
    assert held.placed
    assert len(pins(web.domain)) == 2


def test_a_record_that_cannot_be_read_changes_no_guest(
    guests: PinningController, again: PinningController, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = active(DOMAIN.format(uuid=UUID, more=""))
    adjust(guests, web)
    calls = len(web.domain.calls)
    with monkeypatch.context() as patch:
        fail(patch, "open", errno.EMFILE, "held.json")
        with pytest.raises(KernelFileError):
            adjust(again, web)
    assert len(web.domain.calls) == calls
    adjust(again, web)
    assert again._held.keys() == guests._held.keys()
    assert all(held.placed for held in again._held.values())
