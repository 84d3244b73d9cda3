# SPDX-License-Identifier: GPL-2.0-or-later
"""vm_pinning on real guests of a private libvirtd, and on libvirt's test driver; faults included.

This machine has one node, where `policy=node` has nothing to change: a planner of the tests' own
says where guests go. TuneD's part is in test_guest_plugins.py, real nodes in tests/vm.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import libvirt
import pytest

from tests.libvirtd import Libvirtd
from tests.pinners import Pinner, affinities, on_cpu_1, pinned, pinning
from tests.sandbox import REPO, wait_for
from tuned_virt.core.device_filter import device
from tuned_virt.core.engine import Result
from tuned_virt.core.journal import Journal
from tuned_virt.guests.restore import LibvirtQuestions
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import placement_tag
from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Host
from tuned_virt.placement import Placement, PlacementPlan, PlacementPolicy
from tuned_virt.plugins.vm_pinning.plugin import PinningTuner

TWO_CPUS = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="pins need two CPUs to differ")
pytestmark = [TWO_CPUS, pytest.mark.usefixtures("no_guests_left")]

IOTHREADS = "<iothreads>2</iothreads>"
NAMES = ("..", 'a; rm -rf $HOME "é', "web 1,web2", "n" * 200)


@pytest.fixture(scope="session", autouse=True)
def ksm_stopped() -> None:
    """These guests need nothing of KSM: it is left alone."""


def everywhere() -> str:
    """Where a thread may run that nobody has pinned."""
    found = set(affinities(os.getpid()).values())
    assert len(found) == 1
    return found.pop()


def live_xml(libvirtd: Libvirtd, name: str) -> str:
    with libvirtd.connection() as connection:
        xml: str = connection.lookupByName(name).XMLDesc(0)
        return xml


def where(libvirtd: Libvirtd, name: str) -> dict[str, set[str]]:
    """vCPUs', IOThreads' and all other threads' CPUs."""
    found: dict[str, set[str]] = {"vcpus": set(), "iothreads": set(), "emulator": set()}
    for thread, cpus in affinities(libvirtd.guest_pid(name)).items():
        io = thread.startswith("IO iothread")
        kind = "vcpus" if thread.startswith("CPU ") else "iothreads" if io else "emulator"
        found[kind].add(cpus)
    return found


PINNED = {"vcpus": {"1"}, "iothreads": set(), "emulator": {"0"}}


def test_pinned_as_it_starts_verified_and_put_back(libvirtd: Libvirtd) -> None:
    with pinning(libvirtd.uri) as pinner:
        uuid = libvirtd.start_guest("web1", extra_xml=IOTHREADS)
        pinner.wait_pinned(uuid)
        assert where(libvirtd, "web1") == {**PINNED, "iothreads": {"0"}}
        [finding] = pinner.verify()
        assert finding.result is Result.PASSED, finding
        subprocess.run(
            ["taskset", "-p", "1", str(vcpu_thread(libvirtd, "web1"))], check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        [finding] = pinner.verify()
        assert finding.result is Result.FAILED
        assert "vCPU 0 on 0" in str(finding)
        assert "expected 'shared on node 0: vCPU 0 on 1" in str(finding)
        assert pinner.off()
        assert where(libvirtd, "web1") == {**free(), "iothreads": {everywhere()}}
        assert not (pinner.folder / "baseline.json").exists()
        ours, present = placement_tag.read(live_xml(libvirtd, "web1"))
        assert ours == present, "what libvirt cannot remove is tagged as ours"


def free() -> dict[str, set[str]]:
    """A guest's CPUs as nobody has pinned it."""
    return {"vcpus": {everywhere()}, "iothreads": set(), "emulator": {everywhere()}}


def vcpu_thread(libvirtd: Libvirtd, name: str) -> int:
    threads = affinities(libvirtd.guest_pid(name))
    return next(int(one.split()[-1]) for one in threads if one.startswith("CPU 0/"))


@pytest.mark.parametrize("name", NAMES)
def test_names_are_only_text(libvirtd: Libvirtd, name: str) -> None:
    with pinning(libvirtd.uri) as pinner:
        uuid = libvirtd.start_guest(name)
        pinner.wait_pinned(uuid)
        assert pinner.held()[uuid].device == device(name, uuid)
        assert where(libvirtd, name) == PINNED
        [finding] = pinner.verify()
        assert finding.result is Result.PASSED
        assert pinner.off()
        assert where(libvirtd, name)["vcpus"] == {everywhere()}


def test_a_guest_that_ran_before_is_taken_by_its_memory(libvirtd: Libvirtd) -> None:
    uuid = libvirtd.start_guest("early")
    with pinning(libvirtd.uri, running="leave") as pinner:
        [finding] = pinner.verify()
        assert finding.result is Result.NOTE
        assert "running=leave" in str(finding)
        assert where(libvirtd, "early")["vcpus"] == {everywhere()}
    with pinning(libvirtd.uri, running="local") as pinner:
        pinner.wait_pinned(uuid)
        assert where(libvirtd, "early") == PINNED


def test_grace_lets_a_guest_boot_first(libvirtd: Libvirtd) -> None:
    with pinning(libvirtd.uri, grace="3") as pinner:
        began = time.monotonic()
        uuid = libvirtd.start_guest("boots")
        wait_for("guest seen", lambda: uuid in pinner.held())
        assert not pinner.held()[uuid].pins
        pinner.wait_pinned(uuid, seconds=10)
        assert time.monotonic() - began > 2.9


def test_observe_changes_nothing(libvirtd: Libvirtd) -> None:
    before = libvirtd.start_guest("seen")
    xml = live_xml(libvirtd, "seen")
    with pinning(libvirtd.uri, observe="1", running="place") as pinner:
        wait_for("guest seen", lambda: before in pinner.held())
        [finding] = pinner.verify()
        assert "observed only, would be shared on node 0" in str(finding)
        assert live_xml(libvirtd, "seen") == xml
        assert where(libvirtd, "seen")["vcpus"] == {everywhere()}


def test_what_the_owner_pins_meanwhile_is_the_owners(libvirtd: Libvirtd) -> None:
    with pinning(libvirtd.uri) as pinner:
        uuid = libvirtd.start_guest("owned")
        pinner.wait_pinned(uuid)
        with libvirtd.connection() as connection:
            connection.lookupByName("owned").pinVcpu(0, (True, False))
        wait_for("yielded", lambda: pinner.held()[uuid].placement.kind.value == "owner")
        assert where(libvirtd, "owned")["vcpus"] == {"0"}
        assert pinner.off()
        found = where(libvirtd, "owned")
        assert (found["vcpus"], found["emulator"]) == ({"0"}, {everywhere()})


def test_our_own_events_wake_nobody(libvirtd: Libvirtd) -> None:
    asked = []

    def counting(
        host: Host,
        guests: Sequence[Guest],
        policies: Mapping[str, PlacementPolicy],
        current: Mapping[str, Placement],
    ) -> PlacementPlan:
        asked.append(len(guests))
        return on_cpu_1(host, guests, policies, current)

    with pinning(libvirtd.uri, counting) as pinner:
        pinner.wait_pinned(libvirtd.start_guest("quiet"))
        time.sleep(0.3)
        assert len(asked) <= 3


# --- faults -----------------------------------------------------------------------------------


def test_libvirtd_killed_in_the_middle_of_applying(libvirtd: Libvirtd) -> None:
    uuids: list[str] = []

    def killing(
        host: Host,
        guests: Sequence[Guest],
        policies: Mapping[str, PlacementPolicy],
        current: Mapping[str, Placement],
    ) -> PlacementPlan:
        plan = on_cpu_1(host, guests, policies, current)
        if len(guests) == len(uuids) == 4 and not killed.is_set():
            killed.set()
            threading.Timer(0.004, libvirtd.kill9).start()
        return plan

    killed = threading.Event()
    uuids += [libvirtd.start_guest(f"web{number}") for number in range(4)]
    with pinning(libvirtd.uri, killing, running="place") as pinner:
        assert killed.wait(10)
        wait_for("libvirtd gone", lambda: libvirtd._daemon is None)
        libvirtd.start()
        pinner.wait_pinned(*uuids)
        assert all(where(libvirtd, f"web{number}") == PINNED for number in range(4))
        assert pinner.off()
    assert all(where(libvirtd, f"web{n}")["vcpus"] == {everywhere()} for n in range(4))


CHILD = """
import sys, time
from pathlib import Path
from tests.pinners import Pinner
pinner = Pinner(sys.argv[1], Path(sys.argv[2]), running="place")
print("begins", flush=True)
pinner.start()
time.sleep(60)
"""


@contextlib.contextmanager
def another_process(uri: str, folder: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, uri, folder],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begins\n"
        try:
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize("pins", [1, 4, 7])
def test_tuned_killed_in_the_middle_of_applying(libvirtd: Libvirtd, pins: int) -> None:
    names = [f"web{number}" for number in range(4)]
    for name in names:
        libvirtd.start_guest(name)

    def pins_set() -> int:
        return sum(live_xml(libvirtd, name).count("pin ") for name in names)

    with tempfile.TemporaryDirectory() as folder:
        with another_process(libvirtd.uri, folder) as child:
            wait_for("some pinned", lambda: pins_set() >= pins)
            child.send_signal(signal.SIGKILL)
        after = Pinner(libvirtd.uri, Path(folder), running="place")
        after.start()
        after.wait_pinned(*after.held())
        assert all(where(libvirtd, name) == PINNED for name in names)
        assert after.off()
        assert not (Path(folder) / "baseline.json").exists()
    for name in names:
        assert where(libvirtd, name) == free()


def restore(pinner: Pinner) -> Mapping[str, str]:
    """As `tuned-virt restore` without TuneD; what is pending afterwards."""
    journal = Journal(pinner.folder / "journal")
    with LibvirtQuestions() as libvirt:
        PinningTuner(pinner.file).restore(KernelFS(), pinner.baseline, journal, libvirt)
    return pinner.baseline.record("vm_pinning").pending


def test_restore_without_tuned(libvirtd: Libvirtd) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pinner = Pinner(libvirtd.uri, Path(folder))
        uuid = libvirtd.start_guest("left")
        with another_process(libvirtd.uri, folder) as child:
            pinner.wait_pinned(uuid)
            child.send_signal(signal.SIGKILL)
        assert where(libvirtd, "left") == PINNED
        assert restore(pinner) == {}
        assert where(libvirtd, "left")["vcpus"] == {everywhere()}
        assert not (Path(folder) / "baseline.json").exists()


def test_restore_without_tuned_and_libvirtd(libvirtd: Libvirtd) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pinner = Pinner(libvirtd.uri, Path(folder))
        uuid = libvirtd.start_guest("left")
        with another_process(libvirtd.uri, folder) as child:
            pinner.wait_pinned(uuid)
            child.send_signal(signal.SIGKILL)
        libvirtd.kill9()
        try:
            [why] = restore(pinner).values()
            assert "the affinity of its threads is restored" in why
            assert where(libvirtd, "left")["vcpus"] == {everywhere()}
        finally:
            libvirtd.start()
        assert restore(pinner) == {}
        assert "cpuset='1'" not in live_xml(libvirtd, "left")


def test_a_guest_that_goes_between_plan_and_pin(libvirtd: Libvirtd) -> None:
    def destroying(
        host: Host,
        guests: Sequence[Guest],
        policies: Mapping[str, PlacementPolicy],
        current: Mapping[str, Placement],
    ) -> PlacementPlan:
        if any(guest.name == "short" for guest in guests):
            gone.set()
            with contextlib.suppress(libvirt.libvirtError):
                libvirtd.stop_guest("short")
        return on_cpu_1(host, guests, policies, current)

    gone = threading.Event()
    with pinning(libvirtd.uri, destroying) as pinner:
        uuid = libvirtd.start_guest("stays")
        libvirtd.start_guest("short")
        pinner.wait_pinned(uuid)
        assert gone.wait(10)
        wait_for("forgotten", lambda: len(pinner.held()) == 1)
        assert len(pinner.baseline.record("vm_pinning").originals) == 1


def test_a_pin_that_is_refused_leaves_the_guest_as_it_was(libvirtd: Libvirtd) -> None:
    def beyond(
        host: Host,
        guests: Sequence[Guest],
        policies: Mapping[str, PlacementPolicy],
        current: Mapping[str, Placement],
    ) -> PlacementPlan:
        return PlacementPlan(tuple(pinned(guest, "77", "0") for guest in guests), ())

    with pinning(libvirtd.uri, beyond) as pinner:
        uuid = libvirtd.start_guest("refused")
        wait_for("refused", lambda: uuid in (held := pinner.held()) and bool(held[uuid].failed))
        assert where(libvirtd, "refused") == free()
        [finding] = pinner.verify()
        assert finding.result is Result.FAILED
        assert "vCPU 0 on 77" in str(finding)


def test_a_hung_libvirtd_holds_up_nobody(libvirtd: Libvirtd) -> None:
    with pinning(libvirtd.uri) as pinner:
        uuid = libvirtd.start_guest("web1")
        pinner.wait_pinned(uuid)
        with libvirtd.frozen():
            time.sleep(0.1)
            assert seconds(pinner.verify) < 1
            assert "does not answer" in str(pinner.verify())
            assert seconds(pinner.off) < 1
            [why] = pinner.baseline.record("vm_pinning").pending.values()
            assert why.startswith("guest web1: ")
            assert where(libvirtd, "web1") == PINNED
        wait_for("put back", lambda: where(libvirtd, "web1")["vcpus"] == {everywhere()}, 15)
        wait_for("forgotten", lambda: not (pinner.folder / "baseline.json").exists(), 5)


def seconds(call: object) -> float:
    began = time.monotonic()
    call()  # type: ignore[operator]
    return time.monotonic() - began


def test_libvirtd_that_comes_later(libvirtd: Libvirtd) -> None:
    libvirtd.kill9()
    try:
        with pinning(libvirtd.uri) as pinner:
            wait_for("absence said", lambda: bool(pinner.manager.unavailable()))
            [note] = pinner.verify()
            assert note.result is Result.NOTE
            libvirtd.start()
            wait_for("connected", lambda: not pinner.manager.unavailable(), 15)
            pinner.wait_pinned(libvirtd.start_guest("late"))
    finally:
        if libvirtd._daemon is None:
            libvirtd.start()


def test_a_restarted_guest_has_no_past(libvirtd: Libvirtd) -> None:
    with pinning(libvirtd.uri) as pinner:
        first = libvirtd.start_guest("again")
        pinner.wait_pinned(first)
        [key] = pinner.baseline.record("vm_pinning").originals
        with libvirtd.connection() as connection:
            domain = connection.lookupByName("again")
            xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            domain.destroy()
            connection.createXML(xml)
        wait_for("seen anew", lambda: key not in pinner.baseline.record("vm_pinning").originals)
        pinner.wait_pinned(first)
        [new] = pinner.baseline.record("vm_pinning").originals
        assert new.split("/")[0] == key.split("/")[0]


# --- many guests, in libvirt's test driver ----------------------------------------------------

TEST_DRIVER = "test:///default"
TEST_GUEST = """<domain type='test'><name>{name}</name><memory>8192</memory><vcpu>2</vcpu>
<os><type>hvm</type></os></domain>"""


@contextlib.contextmanager
def many_guests(guests: int) -> Iterator[libvirt.virConnect]:
    """A connection that shares its guests with every other of this process."""
    connection = libvirt.open(TEST_DRIVER)
    for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        domain.destroy()
    domains = [connection.createXML(TEST_GUEST.format(name=f"t{n}")) for n in range(guests)]
    try:
        yield connection
    finally:
        for domain in domains:
            with contextlib.suppress(libvirt.libvirtError):
                domain.destroy()
        connection.close()


def test_two_hundred_guests(libvirtd: Libvirtd) -> None:
    with many_guests(200), pinning(TEST_DRIVER, running="place") as pinner:
        wait_for("all held", lambda: sum(bool(one.pins) for one in pinner.held().values()) == 200)
        findings = pinner.verify()
        assert [one.result for one in findings] == [Result.PASSED] * 200


def test_nothing_leaks_in_starts_and_stops(libvirtd: Libvirtd) -> None:
    def threads() -> list[str]:
        return sorted(thread.name for thread in threading.enumerate())

    with many_guests(1) as connection, pinning(TEST_DRIVER, running="place") as pinner:
        wait_for("first held", lambda: len(pinner.held()) == 1)
        before = len(threads()), len(os.listdir("/proc/self/fd"))
        for number in range(100):
            connection.createXML(TEST_GUEST.format(name=f"brief{number}")).destroy()
        wait_for("all forgotten", lambda: len(pinner.held()) == 1)
        time.sleep(0.2)
        assert len(pinner.baseline.record("vm_pinning").originals) == 1
        assert len(threads()) <= before[0]
        assert len(os.listdir("/proc/self/fd")) <= before[1]
