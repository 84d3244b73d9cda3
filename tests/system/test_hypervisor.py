# SPDX-License-Identifier: GPL-2.0-or-later
"""Running guests followed through a real libvirtd with real QEMU processes."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.libvirtd import Libvirtd
from tests.sandbox import PYTHON, Sandbox, wait_for
from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.follower import GuestFollower
from tuned_virt.libvirt_api.running_guests import RunningGuest, RunningGuestReader

NO_SHARING = "<memoryBacking><nosharepages/></memoryBacking>"
LOOP = "virt-libvirt-loop"


pytestmark = pytest.mark.usefixtures("no_guests_left")


@pytest.fixture(scope="session", autouse=True)
def ksm_stopped() -> None:
    """These guests need nothing of KSM: it is left alone."""


def guest_follower(uri: str) -> GuestFollower[RunningGuest]:
    return GuestFollower(RunningGuestReader(), uri)


class Follower:
    """A follower and what it has said, with the guests as they were then."""

    def __init__(self, uri: str) -> None:
        self.said: list[str] = []
        self.names: list[set[str] | None] = []
        self.hypervisor = guest_follower(uri)

    def changed(self, reason: str) -> None:
        guests = self.hypervisor.guests
        self.names.append(None if guests is None else {guest.name for guest in guests.values()})
        self.said.append(reason)

    def wait(self, reason: str, seconds: float = 1) -> set[str] | None:
        """Until a reason is said; the names of the guests at that moment."""
        wait_for(reason, lambda: reason in self.said, seconds)
        return self.names[self.said.index(reason)]

    def guest(self, uuid: str) -> RunningGuest:
        guests = self.hypervisor.guests
        assert guests is not None
        return guests[uuid]


@pytest.fixture
def following(libvirtd: Libvirtd) -> Iterator[Follower]:
    with follow(libvirtd) as follower:
        yield follower


@contextlib.contextmanager
def follow(libvirtd: Libvirtd) -> Iterator[Follower]:
    follower = Follower(libvirtd.uri)
    follower.hypervisor.start(follower.changed)
    try:
        wait_for("guests listed", lambda: follower.hypervisor.guests is not None, 5)
        yield follower
    finally:
        follower.hypervisor.stop()


def workers() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("virt-libvirt") and name != LOOP]


def open_files() -> list[str]:
    links = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{number}").split(":")[0])
    return sorted(links)


def stop_seconds(hypervisor: GuestFollower[RunningGuest]) -> float:
    began = time.monotonic()
    hypervisor.stop()
    return time.monotonic() - began


def test_starts_and_stops_are_seen_within_a_second(libvirtd: Libvirtd, following: Follower) -> None:
    uuid = libvirtd.start_guest("web1", mib=24)
    assert following.wait("guest web1 started") == {"web1"}
    assert following.guest(uuid) == RunningGuest(uuid, "web1", 24 * 1024, shares_pages=True)
    libvirtd.start_guest("web2")
    assert following.wait("guest web2 started") == {"web1", "web2"}
    libvirtd.stop_guest("web1")
    assert following.wait("guest web1 stopped") == {"web2"}
    assert following.said[0] == "libvirt is available"


def test_what_the_owner_says_of_sharing_is_seen(libvirtd: Libvirtd, following: Follower) -> None:
    uuid = libvirtd.start_guest("alone", extra_xml=NO_SHARING)
    following.wait("guest alone started")
    assert not following.guest(uuid).shares_pages


def test_names_cannot_steer_a_terminal(libvirtd: Libvirtd, following: Follower) -> None:
    uuid = libvirtd.start_guest("web\u202e1\u0085")
    following.wait("guest web?1? started")
    assert following.guest(uuid).name == "web\u202e1\u0085"


def test_the_command_lists_guests_once(libvirtd: Libvirtd) -> None:
    uuid = libvirtd.start_guest("web1")
    assert RunningGuestReader().once(libvirtd.uri) == {
        uuid: RunningGuest(uuid, "web1", 16 * 1024, shares_pages=True)
    }


def test_libvirtd_killed_and_started_again(
    libvirtd: Libvirtd, following: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tuned")
    libvirtd.start_guest("before")
    following.wait("guest before started")
    libvirtd.kill9()
    assert following.wait("libvirt is no longer available: libvirtd closed the connection") is None
    assert following.hypervisor.unavailable
    time.sleep(1.5)
    assert following.hypervisor.guests is None
    libvirtd.start()
    assert following.wait("libvirt is available again", seconds=5) == {"before"}
    assert following.hypervisor.unavailable == ""
    libvirtd.start_guest("after")
    assert following.wait("guest after started") == {"before", "after"}
    assert [record.message for record in caplog.records] == [
        "libvirt is unavailable: libvirtd closed the connection",
        "libvirt is available again, with 1 running guests",
    ]


def test_stop_returns_at_once_while_libvirtd_hangs(libvirtd: Libvirtd, following: Follower) -> None:
    later = [guest_follower(libvirtd.uri) for _ in range(10)]
    with libvirtd.frozen():
        for other in later:
            other.start(lambda reason: None)
        time.sleep(0.3)
        assert later[0].guests is None
        assert later[0].unavailable == "libvirt has not answered yet"
        assert max(map(stop_seconds, later)) < 0.05
        assert stop_seconds(following.hypervisor) < 0.05
        wait_for("one thread that opens, one that closes", lambda: len(workers()) <= 2, 2)
    wait_for("no thread left", lambda: not workers(), 5)
    assert following.said == ["libvirt is available"]


def test_a_libvirtd_that_hangs_is_given_up(
    libvirtd: Libvirtd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binding, "KEEPALIVE", 1)
    monkeypatch.setattr(binding, "KEEPALIVE_COUNT", 1)
    with follow(libvirtd) as follower:
        with libvirtd.frozen():
            follower.wait("libvirt is no longer available: libvirtd no longer answers", seconds=6)
        follower.wait("libvirt is available again", seconds=6)


def test_one_guest_that_hangs_hides_no_other(libvirtd: Libvirtd, following: Follower) -> None:
    libvirtd.start_guest("hangs")
    following.wait("guest hangs started")
    pid = libvirtd.guest_pid("hangs")
    os.kill(pid, signal.SIGSTOP)
    try:
        libvirtd.start_guest("web1")
        assert following.wait("guest web1 started") == {"hangs", "web1"}
        assert RunningGuestReader().once(libvirtd.uri) is not None
    finally:
        os.kill(pid, signal.SIGCONT)


def test_nothing_leaks(libvirtd: Libvirtd) -> None:
    with follow(libvirtd):
        pass
    wait_for("no thread left", lambda: not workers(), 5)
    files = open_files()
    said: list[str] = []
    for _ in range(20):
        again = guest_follower(libvirtd.uri)
        again.start(said.append)
        wait_for("guests listed", lambda again=again: again.guests is not None, 5)  # type: ignore[misc]
        again.stop()

    def turn(number: int) -> None:
        libvirtd.start_guest(f"guest{number}")
        libvirtd.stop_guest(f"guest{number}")

    with follow(libvirtd) as follower, ThreadPoolExecutor(4) as pool:
        list(pool.map(turn, range(20)))  # too brief to be seen running, some or all
        libvirtd.start_guest("seen")
        follower.wait("guest seen started")
        libvirtd.stop_guest("seen")
        wait_for("all stops seen", lambda: follower.hypervisor.guests == {}, 2)
    told = len(follower.said)
    wait_for("no thread left", lambda: not workers(), 5)
    assert [thread.name for thread in threading.enumerate()].count(LOOP) == 1
    assert open_files() == files
    assert told > 1
    libvirtd.start_guest("unseen")
    time.sleep(0.2)
    assert len(follower.said) == told
    assert set(said) == {"libvirt is available"}


LATE_END = """
import ctypes, sys, threading, time
from tuned_virt.libvirt_api.follower import GuestFollower
from tuned_virt.libvirt_api.running_guests import RunningGuestReader
from tuned_virt.libvirt_api.worker import libvirt_worker

libc = ctypes.CDLL(None)
assert libc.__cxa_atexit(libc.sleep, ctypes.c_void_p(1), None) == 0

class Idle:
    defined = False
    def reconcile(self, view):
        return None
    def unreachable(self, why):
        pass

uri, seconds, stops = sys.argv[1], float(sys.argv[2]), sys.argv[3] == "stops"
listed, idle = threading.Event(), Idle()
hypervisor = GuestFollower(RunningGuestReader(), uri)
hypervisor.start(lambda _: listed.set())
libvirt_worker(uri).register(idle)
assert listed.wait(30)
print("listed", flush=True)
time.sleep(seconds)
if stops:
    hypervisor.stop()
    libvirt_worker(uri).unregister(idle)
"""
"""Ends as TuneD does, but takes a second for it once Python's interpreter is no more: libvirt's
event loop would wake twice in it."""


def late_ends(uri: str, seconds: float, stops: str) -> subprocess.Popen[str]:
    """Starts one, and waits until it has listed guests."""
    argv = [PYTHON, "-X", "faulthandler", "-c", LATE_END, uri, str(seconds), stops]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "listed\n"
    return process


@pytest.mark.parametrize("stops", ["stops", "goes on"])
def test_no_end_of_the_process_crashes(libvirtd: Libvirtd, stops: str) -> None:
    """Whenever it comes: a callback of libvirt's after the interpreter's end is a crash."""
    ending = [late_ends(libvirtd.uri, tenths / 10, stops) for tenths in range(6)]
    libvirtd.start_guest("meanwhile")
    libvirtd.stop_guest("meanwhile")
    assert [process.wait(60) for process in ending] == [0] * 6


def test_a_hung_libvirtd_does_not_hold_up_the_end(libvirtd: Libvirtd) -> None:
    process = late_ends(libvirtd.uri, 0.5, "stops")
    with libvirtd.frozen():
        assert process.wait(60) == 0


def test_two_follow_at_once(libvirtd: Libvirtd, following: Follower) -> None:
    with follow(libvirtd) as second:
        libvirtd.start_guest("web1")
        following.wait("guest web1 started")
        second.wait("guest web1 started")
    libvirtd.stop_guest("web1")
    following.wait("guest web1 stopped")
    assert "guest web1 stopped" not in second.said


ASK = """
import dataclasses, json
from tuned_virt.libvirt_api.running_guests import RunningGuestReader
guests = RunningGuestReader().once().values()
print(json.dumps([dataclasses.asdict(guest) for guest in guests]))
"""


def test_libvirtd_inside_a_sandbox(tuned: Callable[..., Sandbox]) -> None:
    t = tuned("2.25", start=False)
    with Libvirtd(t) as libvirtd:
        uuid = libvirtd.start_guest("web1", extra_xml=NO_SHARING)
        [guest] = json.loads(t.run([PYTHON, "-c", ASK]).stdout)
        assert guest.pop("uuid") == uuid
        assert guest == {
            "name": "web1",
            "memory": 16384,
            "shares_pages": False,
            "huge": False,
            "apart": False,
        }
