# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel or libvirt refuses while a guest is pinned or put back is not lost."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.libvirt_api.fake_binding import connect, install
from tests.unit.plugins.vm_pinning.test_controller import DOMAIN, UUID, active
from tuned_virt.core.journal import Journal
from tuned_virt.guests.tracker import TrackedGuest
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.kernel.procfs import start_time
from tuned_virt.libvirt_api import placement_tag
from tuned_virt.libvirt_api.connection import Domain
from tuned_virt.model.pins import Pins
from tuned_virt.placement import unplaced
from tuned_virt.plugins.vm_pinning.original import OriginalPins
from tuned_virt.plugins.vm_pinning.pinner import Pinner, found, words

PID, WORKER = os.getpid(), 4_000_001
OURS, BEFORE = Pins({0: "0"}, "0"), Pins({0: "0-3"}, "0-3")


def tagged(present: Pins) -> Domain:
    """A guest with pins, of which OURS are tagged."""
    tag = placement_tag.text(OURS).replace(
        "<placement", f'<placement xmlns="{placement_tag.NAMESPACE}"'
    )
    pins = "".join(f"<vcpupin vcpu='{n}' cpuset='{cpus}'/>" for n, cpus in present.vcpus.items())
    tune = f"{pins}<emulatorpin cpuset='{present.emulator}'/>"
    more = f"<metadata>{tag}</metadata><cputune>{tune}</cputune>"
    return active(DOMAIN.format(uuid=UUID, more=more))


class Threads:
    """The kernel's threads of this process, as the pinner is to see and confine them."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refuses = False
        self.where: dict[int, set[int]] = {}
        self.tasks = root / f"proc/{PID}/task"
        for thread in (PID, WORKER):
            (self.tasks / str(thread)).mkdir(parents=True)
            (self.tasks / str(thread) / "comm").write_text("qemu-system-x86\n")
            (self.tasks / str(thread) / "status").write_text("Cpus_allowed_list:\t0-3\n")
        monkeypatch.setattr(os, "sched_setaffinity", self.confine)

    def confine(self, thread: int, cpus: set[int]) -> None:
        if self.refuses:
            raise PermissionError
        self.where[thread] = set(cpus)


@pytest.fixture
def threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Threads:
    install(monkeypatch)
    return Threads(tmp_path, monkeypatch)


@pytest.fixture
def pinner(tmp_path: Path) -> Pinner:
    return Pinner(KernelFS(tmp_path), Journal(tmp_path / "journal"))


def guest(domain: Domain) -> TrackedGuest:
    start = start_time(PID) or 0
    return TrackedGuest(domain, "k", PID, start, None, "", 0.0, started_under_profile=True)


def original() -> OriginalPins:
    return OriginalPins("fake:///", UUID, "web1", 1, PID, start_time(PID) or 0, BEFORE)


def test_emulator_threads_that_do_not_go_back_are_tried_again(
    threads: Threads, pinner: Pinner
) -> None:
    threads.refuses = True
    refused = pinner.put_back(connect(), guest(tagged(OURS)), original(), OURS)
    assert list(refused) == ["emulator"]
    threads.refuses = False
    libvirt_is_back = guest(tagged(BEFORE))
    assert pinner.put_back(connect(), libvirt_is_back, original(), OURS) == {}
    assert threads.where == {PID: {0, 1, 2, 3}, WORKER: {0, 1, 2, 3}}


def test_threads_that_are_not_listed_are_not_taken_for_none(
    threads: Threads, pinner: Pinner
) -> None:
    threads.tasks.rename(threads.tasks.with_name("hidden"))
    refused = pinner.put_back(connect(), guest(tagged(OURS)), original(), OURS)
    assert list(refused) == ["threads"]
    assert original().confine(KernelFS(threads.tasks.parents[2])) == refused
    threads.tasks.symlink_to(threads.tasks)
    assert "symbolic links" in original().confine(KernelFS(threads.tasks.parents[2]))["threads"]
    gone = replace(original(), pid=WORKER)
    assert gone.confine(KernelFS(threads.tasks.parents[2])) == {}


def test_emulator_threads_stay_where_libvirt_refuses_their_pin(
    threads: Threads, pinner: Pinner
) -> None:
    """They would be on CPUs that neither libvirt nor the way back knows of."""
    web = active(DOMAIN.format(uuid=UUID, more=""))
    web.domain.refuses = {"pinEmulator"}
    assert pinner.pin(connect(), guest(web), OURS, unplaced("web1", UUID, "")) != {}
    assert threads.where == {}
    web.domain.refuses = set()
    assert pinner.pin(connect(), guest(web), OURS, unplaced("web1", UUID, "")) == {}
    assert threads.where == {PID: {0}, WORKER: {0}}


def test_an_owners_emulator_pin_is_not_ours_to_put_back(threads: Threads, pinner: Pinner) -> None:
    theirs = Pins({0: "0"}, "2")
    assert pinner.put_back(connect(), guest(tagged(theirs)), original(), OURS) == {}
    assert threads.where == {}


def test_pins_in_words() -> None:
    pins = Pins({0: "4", 1: "0-3", 2: "0-3"}, "0-1", {1: "2"}, ("strict", "0"))
    assert words(pins) == (
        "vCPU 0 on 4, vCPU 1-2 on 0-3, emulator on 0-1, IOThread 1 on 2, memory strict on node 0"
    )
    assert words(Pins()) == "nothing"


def test_threads_that_cannot_be_read_now_are_no_absent_ones(
    pinner: Pinner, threads: Threads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = guest(tagged(BEFORE))
    fs = KernelFS(tmp_path)
    assert found(fs, connect(), seen, "fake:///").pins.emulator == "0-3"

    def unreadable(_fs: KernelFS, path: str) -> list[str]:
        raise KernelFileError(path, "Too many open files")

    monkeypatch.setattr(KernelFS, "names", unreadable)
    with pytest.raises(KernelFileError):
        found(fs, connect(), seen, "fake:///")
    refused = pinner.pin(connect(), seen, OURS, unplaced("web1", UUID, ""))
    [why] = refused.values()
    assert "Too many open files" in why


def test_a_guest_is_read_again_once_all_is_put_back(pinner: Pinner, threads: Threads) -> None:
    """In between, a pin that is refused looks as if its owner had set it: it would be kept."""
    seen = guest(tagged(OURS))
    original = OriginalPins("fake:///", UUID, "web1", 1, PID, seen.start, BEFORE)
    assert not pinner.put_back(connect(), seen, original, OURS)
    asked = seen.active.domain.asked[::-1]
    assert asked.index("XMLDesc") < asked.index("setMetadata")
