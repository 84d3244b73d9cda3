# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import importlib.util
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.libvirt_api.fake_binding import NO_DOMAIN, URI, FakeDomain, FakeError, FakeLibvirt
from tests.unit.libvirt_api.fake_binding import install as installed
from tuned_virt.libvirt_api import binding, connection, worker
from tuned_virt.libvirt_api.binding import missing
from tuned_virt.libvirt_api.follower import GuestFollower, summary
from tuned_virt.libvirt_api.running_guests import RunningGuest, RunningGuestReader, backing
from tuned_virt.model.guest import printable

Follower = GuestFollower[RunningGuest]


def follow(changed: Callable[[str], None], uri: str = URI) -> Follower:
    follower = GuestFollower(RunningGuestReader(), uri)
    follower.start(changed)
    return follower


def difference(before: Mapping[str, RunningGuest], after: Mapping[str, RunningGuest]) -> str:
    return summary(RunningGuestReader().differences(before, after))


class GoneDomain(FakeDomain):
    def _info(self) -> list[int]:
        raise FakeError("Domain not found", NO_DOMAIN)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
    fake = installed(monkeypatch)
    monkeypatch.setattr(worker, "_workers", {})
    monkeypatch.setattr(worker, "FIRST_RETRY", 0.05)
    monkeypatch.setattr(connection, "BALLOON_SETTLE", 0.1)
    return fake


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def following(fake: FakeLibvirt, said: list[str]) -> Iterator[Follower]:
    follower = follow(said.append)
    until(lambda: bool(said))
    yield follower
    follower.stop()
    until(lambda: not workers())


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "virt-libvirt"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def guest(number: int, **changes: Any) -> RunningGuest:
    return replace(RunningGuest(f"uuid{number}", f"guest{number}", 1024, True), **changes)


# --- text of others --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inside", "shared"),
    [
        ("", True),
        ("<memoryBacking/>", True),
        ("<memoryBacking><nosharepages/></memoryBacking>", False),
        ("<metadata><memoryBacking><nosharepages/></memoryBacking></metadata>", True),
    ],
)
def test_nosharepages(inside: str, shared: bool) -> None:
    assert backing(f"<domain>{inside}</domain>")[0] is shared


BY_CELL = (
    "<memoryBacking><hugepages><page size='1048576' nodeset='{}'/></hugepages></memoryBacking>"
    "<cpu><numa><cell id='0'/><cell id='1'/></numa></cpu>"
)
PASSED = "<devices>{}</hostdev></devices>"


@pytest.mark.parametrize(
    ("inside", "huge", "apart"),
    [
        ("<memoryBacking><hugepages/></memoryBacking>", True, False),
        ("<memoryBacking><hugepages><page size='2048'/></hugepages></memoryBacking>", True, False),
        (
            # as OpenStack Nova writes it
            "<memoryBacking><hugepages><page size='2048' nodeset='0'/></hugepages></memoryBacking>",
            True,
            False,
        ),
        (BY_CELL.format("0-1"), True, False),
        (BY_CELL.format("1"), False, False),
        ("<memoryBacking><access mode='shared'/></memoryBacking>", False, True),
        ("<memoryBacking><source type='memfd'/></memoryBacking>", False, True),
        (
            "<memoryBacking><source type='memfd'/><access mode='private'/></memoryBacking>",
            False,
            False,
        ),
        ("<cpu><numa><cell id='0' memAccess='shared'/></numa></cpu>", False, True),
        ("<cpu><numa><cell id='0' memAccess='shared'/><cell/></numa></cpu>", False, False),
        ("<launchSecurity type='sev'/>", False, True),
        (
            PASSED.format("<hostdev mode='subsystem' type='pci'><source><address/></source>"),
            False,
            True,
        ),
        (PASSED.format("<hostdev mode='subsystem' type='mdev'>"), False, True),
        (PASSED.format("<hostdev mode='subsystem' type='usb'>"), False, False),
    ],
)
def test_memory_that_is_never_merged(inside: str, huge: bool, apart: bool) -> None:
    assert backing(f"<domain>{inside}</domain>") == (True, huge, apart)


BOMB = '<!DOCTYPE d [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><domain>&b;</domain>'
FILE = '<!DOCTYPE d [<!ENTITY f SYSTEM "file:///etc/passwd">]><domain>&f;</domain>'
HOSTILE = [BOMB, FILE, "<!DOCTYPE d><domain/>", "<domain>", ""]


@pytest.mark.parametrize("xml", HOSTILE)
def test_hostile_xml_is_refused(xml: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        backing(xml)


@pytest.mark.parametrize(
    ("text", "clean"),
    [("web1", "web1"), ("a\nb", "a?b"), ("\x1b[2J", "?[2J"), ("a\u202eb", "a?b"), ("ü ß", "ü ß")],
)
def test_names_are_made_printable(text: str, clean: str) -> None:
    assert printable(text) == clean


def test_differences_in_words() -> None:
    one, two = {"uuid1": guest(1)}, {"uuid2": guest(2, name="a\nb")}
    assert difference({}, one) == "guest guest1 started"
    assert difference(one, two) == "guest guest1 stopped, guest a?b started"
    assert difference(one, one) == ""
    assert difference(one, {"uuid1": guest(1)}) == "guest guest1 restarted"
    assert difference(one, {"uuid1": guest(1, memory=2048)}) == "guest guest1 has 2 MiB"
    many = {f"uuid{number}": guest(number) for number in range(10)}
    assert difference({}, many).endswith("guest guest2 started and 7 more changes")


# --- hosts without libvirt -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "package"), [("libvirt", "python3-libvirt"), ("defusedxml", "python3-defusedxml")]
)
def test_a_package_that_is_missing_is_said_once(
    module: str,
    package: str,
    fake: FakeLibvirt,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    said: list[str],
) -> None:
    caplog.set_level(logging.INFO, "tuned")
    monkeypatch.setattr(binding, "_installed", set())
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == module else find(name)
    )
    follower = follow(said.append, binding.SYSTEM)
    until(lambda: not workers())
    assert follower.guests is None
    assert follower.unavailable == f"{package} is not installed"
    follower.stop()
    assert RunningGuestReader().once() is None
    assert said == []
    messages = [record.message for record in caplog.records]
    assert messages == [f"libvirt is unavailable: {package} is not installed"]


def test_a_binding_that_cannot_be_imported_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "libvirt", lambda: None)
    assert missing("test:///default") == "python3-libvirt cannot be imported"


def test_without_a_socket_libvirt_is_not_asked_and_its_binding_not_imported(
    fake: FakeLibvirt, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(binding, "libvirt", None)
    caplog.set_level(logging.INFO, "tuned")
    monkeypatch.setattr(binding, "SOCKETS", ("/nowhere/ro",))
    monkeypatch.setattr(fake, "_open", None)
    follower = follow(lambda reason: None, binding.SYSTEM)
    time.sleep(0.2)
    assert follower.unavailable == missing() == "there is no libvirt socket (/nowhere/ro)"
    follower.stop()
    until(lambda: not workers())
    assert RunningGuestReader().once() is None
    assert len(caplog.records) == 1


def test_a_refusal_is_said_without_control_characters(
    fake: FakeLibvirt, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tuned")
    fake.refuses = "authentication failed\n\x1b"
    follower = follow(said.append)
    until(lambda: follower.unavailable == "authentication failed??")
    assert RunningGuestReader().once(URI) is None
    fake.refuses = ""
    until(lambda: said == ["libvirt is available again"])
    follower.stop()
    assert [record.message for record in caplog.records] == [
        "libvirt is unavailable: authentication failed??",
        "libvirt is available again, with 0 running guests",
    ]


# --- following -------------------------------------------------------------------------------


def test_many_events_make_few_listings(
    fake: FakeLibvirt, following: Follower, said: list[str]
) -> None:
    for number in range(500):
        fake.domains.append(FakeDomain(number))
        fake.tell(fake.domains[-1])
    until(lambda: len(following.guests or ()) == 500)
    time.sleep(0.1)
    assert fake.lists <= 5
    assert len(said) <= 5


def test_a_guest_that_goes_while_it_is_asked_is_left_out(
    fake: FakeLibvirt, following: Follower, said: list[str]
) -> None:
    fake.domains = [GoneDomain(1), FakeDomain(2)]
    fake.tell(fake.domains[0])
    until(lambda: said[-1] == "guest guest2 started")
    assert following.guests == {"uuid2": guest(2)}


def test_a_balloon_is_followed(fake: FakeLibvirt, following: Follower, said: list[str]) -> None:
    fake.domains = [FakeDomain(1), FakeDomain(2)]
    fake.tell(fake.domains[0])
    until(lambda: len(following.guests or ()) == 2)
    fake.domains[0].memory = fake.domains[1].memory = 2048
    fake.tell(fake.domains[0], fake.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE)
    until(lambda: said[-1] == "guest guest1 has 2 MiB")
    assert following.guests == {"uuid1": guest(1, memory=2048), "uuid2": guest(2)}


def test_all_is_read_again_after_a_while(
    fake: FakeLibvirt, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "RELIST", 0.1)
    fake.domains = [FakeDomain(1)]
    follower = follow(said.append)
    until(lambda: bool(said))
    fake.domains[0].memory = 4096
    fake.domains.append(FakeDomain(2))
    until(lambda: len(follower.guests or ()) == 2 and "guest1 has 4 MiB" in ", ".join(said))
    assert ", ".join(sorted(said[1:])).endswith("guest guest2 started")
    follower.stop()
    until(lambda: not workers())


def test_xml_that_is_refused_is_said_once(
    fake: FakeLibvirt, following: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    fake.domains = [FakeDomain(1, "evil\n", BOMB)]
    for _ in range(3):
        fake.tell(fake.domains[0])
        time.sleep(0.1)
    assert following.guests == {"uuid1": guest(1, name="evil\n")}
    [record] = caplog.records
    assert record.message.startswith("guest evil?: its XML cannot be read")


def test_a_connection_that_closes_is_made_anew(
    fake: FakeLibvirt, following: Follower, said: list[str]
) -> None:
    fake.refuses = "not yet"
    fake.lose(2)
    until(lambda: said[-1] == "libvirt is no longer available: libvirtd no longer answers")
    assert following.guests is None
    fake.refuses = ""
    until(lambda: said[-1] == "libvirt is available again")
    assert fake.open_connections == 1


def test_an_error_in_what_is_called_ends_nothing(
    fake: FakeLibvirt, caplog: pytest.LogCaptureFixture
) -> None:
    called = []

    def changed(reason: str) -> None:
        called.append(reason)
        raise RuntimeError(reason)

    follower = follow(changed)
    until(lambda: bool(called))
    fake.domains = [FakeDomain(1)]
    fake.tell(fake.domains[0])
    until(lambda: len(called) == 2)
    follower.stop()
    assert "internal error" in caplog.text


def test_stop_waits_for_nobody(fake: FakeLibvirt) -> None:
    entered, leave, left = threading.Event(), threading.Event(), threading.Event()

    def changed(reason: str) -> None:
        entered.set()
        leave.wait(5)
        left.set()

    follower = follow(changed)
    assert entered.wait(5)
    follower.stop()
    assert not left.is_set()
    assert follower.guests is None
    assert follower.unavailable == "libvirt has not been queried yet"
    leave.set()
    until(lambda: not workers())
    assert (fake.open_connections, fake.callbacks, fake.on_close) == (0, {}, None)


def test_stop_may_be_called_from_what_is_called(fake: FakeLibvirt, said: list[str]) -> None:
    def changed(reason: str) -> None:
        said.append(reason)
        follower.stop()

    follower = follow(changed)
    until(lambda: bool(said) and not workers())
    assert said == ["libvirt is available"]
