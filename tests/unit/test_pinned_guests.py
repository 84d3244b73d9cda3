# SPDX-License-Identifier: GPL-2.0-or-later
"""vm_pinning's worker on made-up guests, with domains that record every call that changes them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tuned_virt.baseline import Baseline
from tuned_virt.guest import Guest, GuestError
from tuned_virt.guesttuner import Claim
from tuned_virt.hypervisor import binding
from tuned_virt.hypervisor.control import View
from tuned_virt.hypervisor.link import Active
from tuned_virt.journal import Journal
from tuned_virt.kernelfs import KernelFS
from tuned_virt.pinning import policy
from tuned_virt.pinning.guests import PinnedGuests
from tuned_virt.placement import Kind

DATA = Path(__file__).parents[3] / "shared/data"
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


CHANGES = ("pinVcpu", "pinEmulator", "pinIOThread", "setNumaParameters", "setMetadata")


class Gone(Exception):
    """libvirtError."""

    def get_error_code(self) -> int:
        return 42


class FakeDomain:
    """Tells where its vCPUs are, and keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.gone = False

    def vcpuPinInfo(self, flags: int) -> list[tuple[bool, ...]]:
        return [(True,) * 4] * 2

    def emulatorPinInfo(self, flags: int) -> tuple[bool, ...]:
        return (True,) * 4

    def isActive(self) -> int:
        return int(not self.gone)

    def ID(self) -> int:
        return 1

    def __getattr__(self, name: str) -> Any:
        if name not in (
            "pinVcpu",
            "pinEmulator",
            "pinIOThread",
            "setNumaParameters",
            "setMetadata",
        ):
            raise AttributeError(name)

        def call(*arguments: Any) -> None:
            if self.gone:
                raise Gone("no domain")
            self.calls.append((name, *arguments))

        return call


class FakeLink:
    """A connection to no libvirt."""

    def capabilities(self) -> str:
        return HOST

    @contextlib.contextmanager
    def asking(self, patience: float = 0) -> Iterator[None]:
        yield

    def own(self, active: Active, key: str, value: str) -> None:
        pass

    def alive(self) -> bool:
        return True

    def reread(self, active: Active) -> Active:
        return active


@pytest.fixture
def guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PinnedGuests:
    class Fake:
        libvirtError = Gone
        VIR_DOMAIN_AFFECT_LIVE = 1

    monkeypatch.setattr(binding, "libvirt", Fake)
    fs = KernelFS(tmp_path / "root")
    journal = Journal(tmp_path / "journal")
    return PinnedGuests("fake:///", fs, Baseline(tmp_path), journal, file=tmp_path / "held.json")


def adjust(guests: PinnedGuests, *running: Active, **options: str) -> None:
    """As a guest that starts while the profile is active."""
    claims = {one.run: Claim(one.name, policy.parse(options)) for one in running}
    link: Any = FakeLink()
    if guests._claims is None:
        guests.adjust(View(link, {}), {})
    guests.adjust(View(link, {one.uuid: one for one in running}), claims)


def active(xml: str, uuid: str = UUID) -> Active:
    return Active(uuid, 1, "web1", xml, FakeDomain())


def pins(domain: FakeDomain) -> list[tuple[Any, ...]]:
    return [call for call in domain.calls if call[0] == "pinVcpu"]


def test_a_guest_is_tagged_then_pinned_inside_a_node(guests: PinnedGuests) -> None:
    web = active(DOMAIN.format(uuid=UUID, more=""))
    adjust(guests, web)
    assert web.domain.calls[0][0] == "setMetadata"
    assert re.search(r'vcpus="0=0-1 1=0-1"', web.domain.calls[0][2])
    assert [call[2] for call in pins(web.domain)] == [(True, True)] * 2
    calls = len(web.domain.calls)
    adjust(guests, web)
    assert len(web.domain.calls) == calls, "what is applied is not written again"


def test_a_guest_that_has_gone_is_no_error(
    guests: PinnedGuests, caplog: pytest.LogCaptureFixture
) -> None:
    web = active(DOMAIN.format(uuid=UUID, more=""))
    web.domain.gone = True
    adjust(guests, web)
    adjust(guests)
    assert guests.idle
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_the_owner_may_opt_out(guests: PinnedGuests) -> None:
    wish = '<metadata><policy xmlns="urn:tuned-virt-plus:policy:1" policy="none"/></metadata>'
    web = active(DOMAIN.format(uuid=UUID, more=wish))
    adjust(guests, web)
    assert web.domain.calls == []


def pinned_files() -> list[Path]:
    found = []
    for file in sorted(DATA.glob("domains/*.xml")):
        with contextlib.suppress(GuestError, UnicodeDecodeError):
            owned = Guest.from_xml(file.read_text()).owned
            if owned.vcpus or owned.emulator or owned.iothreads or owned.memory or owned.automatic:
                found.append(file)
    return found


@pytest.mark.skipif(not DATA.is_dir(), reason="shared/data is not here")
def test_nothing_that_an_owner_pinned_is_changed(guests: PinnedGuests) -> None:
    files = pinned_files()
    assert len(files) >= 3
    for file in files:
        guest = Guest.from_xml(file.read_text())
        one = active(file.read_text(), guest.uuid or UUID)
        adjust(guests, one, policy="dedicated", overcommit="64")
        changed = {(call[0], call[1]) for call in one.domain.calls if call[0] != "setMetadata"}
        for number in guest.owned.vcpus:
            assert ("pinVcpu", number) not in changed, file
        assert guest.owned.emulator is None or not any(c[0] == "pinEmulator" for c in changed)
        for number in guest.owned.iothreads:
            assert ("pinIOThread", number) not in changed, file
        if guest.owned.memory or guest.owned.automatic:
            assert not any(call[0] == "setNumaParameters" for call in changed), file
        if guest.owned.vcpus:
            assert [held.placement.kind for held in guests._held.values()] == [Kind.OWNER], file
