# SPDX-License-Identifier: GPL-2.0-or-later
"""The worker and its one connection, over a fake binding."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.guests.recording import until
from tests.unit.libvirt_api.fake_binding import URI, FakeDomain, FakeLibvirt, connect, install
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import binding, placement_tag, worker
from tuned_virt.libvirt_api.connection import Changes, Domain
from tuned_virt.libvirt_api.errors import LibvirtError, NoAnswer, Unanswered
from tuned_virt.libvirt_api.follower import GuestFollower
from tuned_virt.libvirt_api.guest_disks import GuestDiskReader
from tuned_virt.libvirt_api.guest_pages import GuestPageReader
from tuned_virt.libvirt_api.guest_weights import GuestWeights, WeightError
from tuned_virt.libvirt_api.running_guests import RunningGuestReader
from tuned_virt.libvirt_api.worker import (
    GuestsView,
    LibvirtWorker,
    OneShotClient,
    ask_once,
    descriptions,
    libvirt_worker,
)

DISK = "<domain><devices><disk><source {}/></disk></devices></domain>"


class Looks:
    """A reconciler that keeps what it is shown."""

    def __init__(self, defined: bool = False) -> None:
        self.defined = defined
        self.views: list[GuestsView] = []
        self.why = ""

    def reconcile(self, view: GuestsView) -> float | None:
        self.views.append(view)
        return None

    def unreachable(self, why: str) -> None:
        self.why = why

    def names(self) -> list[str]:
        return [guest.name for guest in self.views[-1].guests.values()] if self.views else []


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLibvirt]:
    monkeypatch.setattr(worker, "_workers", {})
    monkeypatch.setattr(worker, "FIRST_RETRY", 0.02)
    made = install(monkeypatch)
    yield made
    made.hang = lambda: None
    for one in worker._workers.values():
        one.close()
    until(lambda: made.open_connections == 0)


@pytest.fixture
def looks(fake: FakeLibvirt) -> Looks:
    looking = Looks()
    libvirt_worker(URI).register(looking)
    until(lambda: looking.views)
    time.sleep(0.02)
    return looking


def turn(fake: FakeLibvirt, looks: Looks, domain: FakeDomain, *event: object) -> GuestsView:
    """What a reconciler sees after an event."""
    turns = len(looks.views)
    fake.tell(domain, *event)  # type: ignore[arg-type]
    until(lambda: len(looks.views) > turns)
    return looks.views[-1]


# --- the inventory ---------------------------------------------------------------------------


def test_all_who_follow_share_one_connection_and_one_listing(
    fake: FakeLibvirt, looks: Looks
) -> None:
    said: list[str] = []
    readers = (RunningGuestReader(), GuestDiskReader(), GuestPageReader())
    followers = [GuestFollower(reader, URI) for reader in readers]
    for follower in followers:
        follower.start(said.append)
    until(lambda: all(follower.guests is not None for follower in followers))
    time.sleep(0.05)
    lists = fake.lists
    web = FakeDomain(1, "web1")
    fake.domains = [web]
    turn(fake, looks, web)
    until(lambda: all(len(follower.guests or ()) == 1 for follower in followers))
    assert (fake.lists, fake.opened) == (lists + 1, ["read-write"])
    for follower in followers:
        follower.stop()


def test_who_tunes_comes_before_who_follows(fake: FakeLibvirt, looks: Looks) -> None:
    tunes = Looks()
    libvirt_worker(URI).register(tunes, first=True)
    assert libvirt_worker(URI)._reconcilers == [tunes, looks]


def test_only_what_changed_is_read_again(fake: FakeLibvirt, looks: Looks) -> None:
    one, two = FakeDomain(1), FakeDomain(2)
    fake.domains = [one, two]
    before = turn(fake, looks, one).guests
    one.asked.clear()
    two.asked.clear()
    two.xml = "<domain>more</domain>"
    after = turn(fake, looks, two).guests
    assert after["uuid1"] is before["uuid1"]
    assert after["uuid2"].xml == two.xml
    assert "XMLDesc" not in one.asked


def test_defined_guests_are_listed_for_who_wants_them(fake: FakeLibvirt, looks: Looks) -> None:
    off, on = FakeDomain(-1, "off", uuid="off"), FakeDomain(2, "on")
    fake.domains = [off, on]
    assert set(turn(fake, looks, on).defined) == {"uuid2"}
    wants = Looks(defined=True)
    libvirt_worker(URI).register(wants)
    until(lambda: wants.views)
    assert (set(wants.views[-1].defined), wants.names()) == ({"off", "uuid2"}, ["on"])


def test_a_guest_that_is_still_starting_waits_for_its_event(
    fake: FakeLibvirt, looks: Looks
) -> None:
    web = FakeDomain(1, "web1")
    web.starting = True
    fake.domains = [web]
    assert not turn(fake, looks, web).guests
    web.starting = False
    assert set(turn(fake, looks, web).guests) == {"uuid1"}


def test_our_own_changes_are_no_news(fake: FakeLibvirt, looks: Looks) -> None:
    web = FakeDomain(1, "web1")
    fake.domains = [web]
    view = turn(fake, looks, web)
    view.connection.own(view.guests["uuid1"], "cputune.vcpupin0", "0-1")
    turns = len(looks.views)
    fake.tell(web, fake.VIR_DOMAIN_EVENT_ID_TUNABLE, {"cputune.vcpupin0": "0-1"})
    fake.tell(web, fake.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, 2, placement_tag.NAMESPACE)
    time.sleep(0.05)
    assert len(looks.views) == turns
    turn(fake, looks, web, fake.VIR_DOMAIN_EVENT_ID_TUNABLE, {"cputune.vcpupin0": "3"})
    turn(fake, looks, web, fake.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, 2, "urn:other")


def test_after_an_outage_all_is_listed_again(fake: FakeLibvirt, looks: Looks) -> None:
    fake.refuses = "connection refused"
    fake.domains = [FakeDomain(1, "web1")]
    fake.lose(1)
    until(lambda: looks.why == "connection refused")
    fake.refuses = ""
    until(lambda: looks.names() == ["web1"])
    assert fake.open_connections == 1


def test_a_call_that_fails_on_a_dead_connection_ends_it(fake: FakeLibvirt, looks: Looks) -> None:
    fake.domains = [FakeDomain(1, "web1")]
    fake.dead = True
    libvirt_worker(URI).wake()
    until(lambda: looks.names() == ["web1"])


# --- questions -------------------------------------------------------------------------------


def test_questions_are_answered_without_another_listing(fake: FakeLibvirt, looks: Looks) -> None:
    lists = fake.lists
    assert libvirt_worker(URI).ask(lambda view: len(view.guests), 1) == 0
    assert fake.lists == lists


def test_a_question_and_a_wake_at_once_are_both_seen_to(fake: FakeLibvirt, looks: Looks) -> None:
    turns = len(looks.views)
    libvirt_worker(URI).wake()
    libvirt_worker(URI).ask(lambda view: None, 1)
    until(lambda: len(looks.views) > turns)


def test_what_a_question_raises_is_said(fake: FakeLibvirt, looks: Looks) -> None:
    def fails(view: GuestsView) -> None:
        raise LibvirtError("cgroup: no controller")

    with pytest.raises(NoAnswer, match="cgroup: no controller"):
        libvirt_worker(URI).ask(fails, 1)


def test_a_hung_libvirt_is_asked_for_as_long_as_it_should_take(
    fake: FakeLibvirt, looks: Looks
) -> None:
    go = threading.Event()
    fake.hang = lambda: go.wait(5)
    libvirt_worker(URI).wake()
    time.sleep(0.05)
    began = time.monotonic()
    with pytest.raises(NoAnswer, match="does not answer"):
        libvirt_worker(URI).ask(lambda view: None, 5)
    assert time.monotonic() - began < 1
    go.set()


def test_nobody_has_asked_yet(fake: FakeLibvirt) -> None:
    with pytest.raises(Unanswered, match="not been queried yet"):
        LibvirtWorker(URI).ask(lambda view: None, 1)


def test_a_command_asks_once_read_only_and_follows_nothing(fake: FakeLibvirt) -> None:
    fake.domains, fake.capabilities = [FakeDomain(1, "web1")], "<capabilities/>"
    assert descriptions(URI) == ("<capabilities/>", {"web1": "<domain/>"})
    until(lambda: fake.open_connections == 0)
    assert (fake.opened, fake.callbacks) == (["read-only"], {})
    fake.refuses = "authentication failed"
    assert ask_once(lambda view: 1, URI) is None


@pytest.mark.large
def test_a_one_shot_client_waits_for_the_connection(fake: FakeLibvirt) -> None:
    fake.hang = lambda: time.sleep(0.4)
    with OneShotClient(libvirt_worker(URI)) as client:
        assert client.ask(lambda view: "yes", 5) == "yes"
    fake.hang = lambda: None
    until(lambda: fake.open_connections == 0)


# --- readers ---------------------------------------------------------------------------------


def test_disks_of_running_guests_are_those_of_the_next_start_too(fake: FakeLibvirt) -> None:
    web = FakeDomain(1, "web1", DISK.format("file='/a'"))
    web.persistent, web.inactive = True, DISK.format("dev='/dev/b'")
    fake.domains = [web, FakeDomain(-1, "off", DISK.format("file='/c'"), "off")]
    found = GuestDiskReader().once(URI)
    assert found is not None
    assert {one.name: one.paths for one in found.values()} == {
        "web1": ("/a", "/dev/b"),
        "off": ("/c",),
    }


def test_a_volume_is_asked_for_again_when_its_pool_comes(fake: FakeLibvirt, looks: Looks) -> None:
    said: list[str] = []
    fake.domains = [FakeDomain(1, "web1", DISK.format("pool='images' volume='data'"))]
    follower = GuestFollower(GuestDiskReader(), URI)
    follower.start(said.append)
    until(lambda: follower.guests)
    assert (follower.guests or {})["uuid1"].unresolved == ("volume data of storage pool images",)
    fake.volumes["images", "data"] = "/data"
    fake.tell_pools()
    until(lambda: (follower.guests or {})["uuid1"].paths == ("/data",))
    assert said == ["libvirt is available", "guest web1 has other disks"]
    follower.stop()


def test_a_reader_that_fails_keeps_nobody_from_tuning(
    fake: FakeLibvirt, looks: Looks, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(RunningGuestReader):
        def look(self, view: GuestsView) -> dict[str, object]:  # type: ignore[override]
            raise RuntimeError("a fault of ours")

    follower = GuestFollower(Broken(), URI)
    follower.start(lambda reason: None)
    until(lambda: "internal error" in caplog.text)
    web = FakeDomain(1, "web1")
    fake.domains = [web]
    assert set(turn(fake, looks, web).guests) == {"uuid1"}
    assert fake.opened == ["read-write"]
    follower.stop()


# --- weights ---------------------------------------------------------------------------------


def test_weights_are_read_and_set_through_the_one_connection(
    fake: FakeLibvirt, looks: Looks
) -> None:
    web, bare = FakeDomain(1, "web1"), FakeDomain(2, "bare")
    web.weights = {"weight": 300, "device_weight": "/dev/sda,500"}
    bare.refuses = {"blkioParameters"}
    fake.domains = [web, bare]
    turn(fake, looks, web)
    weights = GuestWeights(URI)
    found = {one.name: (one.weight, dict(one.devices), one.owned) for one in weights.read()}
    assert found == {"web1": (300, {"/dev/sda": 500}, 0), "bare": (None, {}, 0)}
    weights.write("uuid1", 1, "weight", 400)
    assert web.weights["weight"] == 400
    assert fake.opened == ["read-write"]


def test_a_weight_that_systemd_has_scaled_for_bfq_is_the_one_that_was_given(
    fake: FakeLibvirt, looks: Looks, tmp_path: Path
) -> None:
    """With systemd-machined and BFQ on cgroup v2: virsh blkiotune sets 500 and shows 136."""
    web, other = FakeDomain(1, "web1"), FakeDomain(2, "other")
    web.weights["weight"], other.weights["weight"] = 136, 77
    fake.domains = [web, other]
    turn(fake, looks, web)
    machines = tmp_path / "sys/fs/cgroup/machine.slice"
    for name in ("1\\x2dweb1", "2\\x2dother"):
        scope = machines / f"machine-qemu\\x2d{name}.scope"
        scope.mkdir(parents=True)
        (scope / "io.weight").write_text("default 500\n")
    weights = GuestWeights(URI, KernelFS(tmp_path))
    assert {one.name: one.weight for one in weights.read()} == {"web1": 500, "other": 77}


def test_a_device_that_cannot_lose_its_weight_gets_the_guests(
    fake: FakeLibvirt, looks: Looks
) -> None:
    web = FakeDomain(1, "web1")
    web.weights["weight"], web.refuses = 250, {"/dev/sda,0"}
    fake.domains = [web]
    turn(fake, looks, web)
    GuestWeights(URI).write("uuid1", 1, "device_weight", "/dev/sda,0")
    assert web.weights["device_weight"] == "/dev/sda,250"


def test_a_weight_that_is_not_set_is_said(
    fake: FakeLibvirt, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = FakeDomain(1, "web1")
    fake.domains = [web]
    turn(fake, looks, web)
    weights = GuestWeights(URI)
    with pytest.raises(WeightError, match="restarted"):
        weights.write("uuid1", 7, "weight", 1)
    with pytest.raises(WeightError, match="stopped"):
        weights.write("uuid9", 1, "weight", 1)
    web.refuses = {"weight"}
    with pytest.raises(WeightError, match="no controller"):
        weights.write("uuid1", 1, "weight", 1)
    monkeypatch.setattr(binding, "missing", lambda uri: "there is no libvirt socket")
    with pytest.raises(WeightError, match="no libvirt socket"):
        weights.read()


# --- one connection --------------------------------------------------------------------------


def test_a_guest_is_the_same_object_until_its_xml_differs(fake: FakeLibvirt) -> None:
    web = FakeDomain(1, "web1")
    fake.domains = [web]
    link = connect()
    [first] = link.list(Changes(everything=True)).values()
    assert link.reread(first) is first
    web.xml = "<domain>pinned</domain>"
    again: Domain = link.reread(first)
    assert again.xml == web.xml
    assert link.list(Changes()) == {"uuid1": again}
    link.close()


def test_a_guest_that_goes_while_it_is_read_is_left_out(fake: FakeLibvirt) -> None:
    fake.domains = [FakeDomain(1), FakeDomain(2)]
    fake.domains[0].gone = True
    link = connect()
    assert set(link.list(Changes(everything=True))) == {"uuid2"}
    fake.dead = True
    with pytest.raises(LibvirtError, match="the connection is gone"):
        link.list(Changes())
    link.close()
