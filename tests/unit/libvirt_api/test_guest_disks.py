# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests' disks with their backing chains: by libvirt's word, and nobody else's."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.libvirt_api.fake_binding import URI, FakeDomain, FakeLibvirt, install
from tuned_virt.libvirt_api.backing_chains import BackingChains
from tuned_virt.libvirt_api.connection import Changes, Connection
from tuned_virt.libvirt_api.guest_disks import FollowedGuestDisks, GuestDiskReader, GuestDisks
from tuned_virt.libvirt_api.worker import GuestsView

OVERLAY = """<domain><devices><disk type='file'><driver type='{format}'/>
<source file='/fast/web.qcow2'/>{chain}</disk></devices></domain>"""

CHAIN = """<backingStore type='file'><format type='raw'/><source file='/slow/base.raw'/>
<backingStore/></backingStore>"""

VOLUME = """<volume><target><format type='{format}'/></target>
<backingStore><path>{backing}</path><format type='{backing_format}'/></backingStore></volume>"""

OFF = OVERLAY.format(format="qcow2", chain="")
RUNNING = OVERLAY.format(format="qcow2", chain=CHAIN)
ENDED = OVERLAY.format(format="qcow2", chain="<backingStore/>")

BOTH = ("/fast/web.qcow2", "/slow/base.raw")
TOP = BOTH[:1]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
    return install(monkeypatch)


@pytest.fixture
def connection(fake: FakeLibvirt) -> Connection:
    return Connection(URI, queue.SimpleQueue())


def look(reader: GuestDiskReader, connection: Connection) -> list[GuestDisks]:
    """All guests, read anew."""
    connection._known = {}
    reader.forget()
    found = connection.list(Changes(everything=True), defined=True)
    return [*reader.look(GuestsView(connection, found, found)).values()]


def followed(folder: Path) -> Callable[[Connection], tuple[str, ...]]:
    reader = FollowedGuestDisks(BackingChains(folder))
    return lambda connection: look(reader, connection)[0].paths


def test_a_base_image_is_known_while_its_guest_is_off_once_it_has_run(
    fake: FakeLibvirt, connection: Connection, tmp_path: Path
) -> None:
    paths = followed(tmp_path)
    fake.domains = [FakeDomain(-1, "web", OFF, "u")]
    assert paths(connection) == TOP
    web = FakeDomain(1, "web", RUNNING, "u")
    web.persistent, web.inactive = True, OFF
    fake.domains = [web]
    assert paths(connection) == BOTH
    fake.domains = [FakeDomain(-1, "web", OFF, "u")]
    assert paths(connection) == BOTH
    assert followed(tmp_path)(connection) == BOTH, "another process knows it as well"
    assert look(GuestDiskReader(BackingChains(tmp_path)), connection)[0].paths == BOTH


def test_a_start_and_a_stop_are_no_difference(
    fake: FakeLibvirt, connection: Connection, tmp_path: Path
) -> None:
    reader = FollowedGuestDisks(BackingChains(tmp_path))
    seen = []
    for number, xml in ((1, RUNNING), (-1, OFF), (2, RUNNING), (-1, OFF)):
        fake.domains = [FakeDomain(number, "web", xml, "u")]
        seen.append({one.uuid: one for one in look(reader, connection)})
    assert [*reader.differences(seen[0], seen[1]), *reader.differences(seen[1], seen[2])] == []
    assert seen[3]["u"].paths == BOTH


def test_a_chain_that_has_been_pulled_or_whose_guest_is_gone_is_forgotten(
    fake: FakeLibvirt, connection: Connection, tmp_path: Path
) -> None:
    paths = followed(tmp_path)
    fake.domains = [FakeDomain(1, "web", RUNNING, "u")]
    assert paths(connection) == BOTH
    fake.domains = [FakeDomain(1, "web", ENDED, "u")]
    assert paths(connection) == TOP
    fake.domains = [FakeDomain(-1, "web", OFF, "u")]
    assert paths(connection) == TOP
    fake.domains = [FakeDomain(1, "web", RUNNING, "u")]
    assert paths(connection) == BOTH
    fake.domains = [FakeDomain(1, "other", "<domain/>", "o")]
    assert paths(connection) == ()
    fake.domains = [FakeDomain(-1, "web", OFF, "u")]
    assert paths(connection) == TOP


def test_who_only_asks_writes_nothing(
    fake: FakeLibvirt, connection: Connection, tmp_path: Path
) -> None:
    fake.domains = [FakeDomain(1, "web", RUNNING, "u")]
    reader = GuestDiskReader(BackingChains(tmp_path / "state"))
    assert look(reader, connection)[0].paths == BOTH
    assert not (tmp_path / "state").exists()


def volume(image_format: str, backing: str = "", backing_format: str = "") -> str:
    return VOLUME.format(format=image_format, backing=backing, backing_format=backing_format)


def test_storage_pools_tell_the_chain_of_a_guest_that_has_never_run(
    fake: FakeLibvirt, connection: Connection, tmp_path: Path
) -> None:
    fake.domains = [FakeDomain(-1, "web", OFF, "u")]
    fake.images = {
        "/fast/web.qcow2": volume("qcow2", "/slow/base.qcow2", "qcow2"),
        "/slow/base.qcow2": volume("qcow2", "/slow/root.raw", "raw"),
        "/slow/root.raw": volume("qcow2", "/etc/shadow", "raw"),
    }
    found = followed(tmp_path)(connection)
    assert found == ("/fast/web.qcow2", "/slow/base.qcow2", "/slow/root.raw")


@pytest.mark.parametrize(
    ("xml_format", "found"),
    [("raw", "qcow2"), ("qcow2", "raw"), ("", "qcow2"), ("vmdk", "qcow2")],
)
def test_what_a_guest_may_have_written_is_not_believed(
    fake: FakeLibvirt, connection: Connection, tmp_path: Path, xml_format: str, found: str
) -> None:
    """A header of qcow2 in a raw image is the guest's; where formats differ, nobody knows whose."""
    xml = OVERLAY.format(format=xml_format, chain="")
    fake.domains = [FakeDomain(-1, "web", xml, "u")]
    fake.images = {"/fast/web.qcow2": volume(found, "/dev/sda", "raw")}
    assert followed(tmp_path)(connection) == TOP


def test_a_chain_that_bites_its_tail_ends(
    fake: FakeLibvirt, connection: Connection, tmp_path: Path
) -> None:
    fake.domains = [FakeDomain(-1, "web", OFF, "u")]
    fake.images = {"/fast/web.qcow2": volume("qcow2", "/fast/web.qcow2", "qcow2")}
    assert followed(tmp_path)(connection) == TOP


def test_network_disks_and_volumes_by_what_they_are(
    fake: FakeLibvirt, connection: Connection, tmp_path: Path
) -> None:
    disks = (
        "<disk type='network'><source protocol='rbd' name='p/i'/></disk>"
        "<disk type='volume'><source pool='ceph' volume='v'/></disk>"
        "<disk type='volume'><source pool='idle' volume='v'/></disk>"
        "<disk type='vhostuser'><source type='unix' path='/s'/></disk>"
    )
    fake.pool_types = {"ceph": "rbd"}
    fake.domains = [FakeDomain(-1, "web", f"<domain><devices>{disks}</devices></domain>", "u")]
    (found,) = look(GuestDiskReader(BackingChains(tmp_path)), connection)
    assert found.paths == ()
    assert found.network == ("rbd",)
    assert found.unknown == ("vhost-user: another program has it",)
    assert found.unresolved == ("volume v of storage pool idle",)


def test_xml_that_cannot_be_read_is_said(
    fake: FakeLibvirt, connection: Connection, tmp_path: Path
) -> None:
    fake.domains = [FakeDomain(-1, "web", "<domain", "u")]
    (found,) = look(GuestDiskReader(BackingChains(tmp_path)), connection)
    assert found.paths == ()
    assert found.unknown[0].startswith("its XML cannot be read: line 1")
