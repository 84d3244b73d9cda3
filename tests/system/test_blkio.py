# SPDX-License-Identifier: GPL-2.0-or-later
"""vm_blkio on real guests of a private libvirtd, whose weights are in real cgroups."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.libvirtd import Libvirtd
from tests.loopdev import attached, loops, set_all
from tests.sandbox import Sandbox, wait_for
from tuned_virt.core.engine import Engine
from tuned_virt.core.journal import Journal
from tuned_virt.core.options import Section
from tuned_virt.core.originals import Originals
from tuned_virt.core.plan_runner import PlanRunner
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api.guest_weights import GuestWeights
from tuned_virt.plugins.vm_blkio import BlkioTuner, WeightPolicy, WeightState
from tuned_virt.plugins.vm_blkio.plugin import has_controller
from tuned_virt.plugins.vm_blkio.policy import parse_sections

CONTROLLERS = '"blkio"'
PARTITIONS = ("*/machine", "machine")
"""Cgroups that libvirt makes for its guests and leaves: of version 1, of version 2."""

CONTROLLER_FILES = ("sys/fs/cgroup/cgroup.controllers", "sys/fs/cgroup/blkio")
"""What says that there is a controller: of version 2, of version 1."""

MACHINE = KernelFS()

OWN = "<blkiotune><weight>777</weight></blkiotune>"
ASKED = parse_sections([Section("", {"blkio_weight": "300"}, devices="web*")])

Weighing = Engine[WeightPolicy, WeightState]

pytestmark = pytest.mark.skipif(
    not has_controller(MACHINE), reason="this kernel has no cgroup controller for block I/O"
)


@pytest.fixture(scope="session", autouse=True)
def ksm_stopped() -> None:
    """These guests need nothing of KSM: it is left alone."""


@contextlib.contextmanager
def no_partition_left() -> Iterator[None]:
    before = partitions()
    yield
    for path in partitions() - before:
        wait_for(f"{path} is gone", functools.partial(gone, path))


def partitions() -> set[Path]:
    return {path for pattern in PARTITIONS for path in Path("/sys/fs/cgroup").glob(pattern)}


def gone(path: Path) -> bool:
    """Remove a cgroup with those of guests that libvirtd was killed under; whether it is gone."""
    for folder, *_ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return not path.exists()


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[Libvirtd]:
    with no_partition_left(), Libvirtd(controllers=CONTROLLERS) as private:
        yield private


@pytest.fixture(autouse=True)
def no_guests_left(libvirtd: Libvirtd) -> Iterator[None]:
    yield
    libvirtd.forget_guests()


def engine(libvirtd: Libvirtd, folder: Path, fs: KernelFS = MACHINE) -> Weighing:
    tuner = BlkioTuner(GuestWeights(libvirtd.uri))
    return Engine(tuner, fs, Originals(folder, "boot"), Journal(folder / "journal"))


def parameters(libvirtd: Libvirtd, name: str) -> dict[str, Any]:
    with libvirtd.connection() as connection:
        told: dict[str, Any] = connection.lookupByName(name).blkioParameters(1)
        return told


def weight(libvirtd: Libvirtd, name: str) -> int:
    return int(parameters(libvirtd, name)["weight"])


def lines(weighing: Weighing, asked: WeightPolicy) -> list[str]:
    outcome = weighing.apply(asked)
    return [str(line) for line in weighing.verify(outcome, asked, False)]


def test_weights_are_set_live_once_and_put_back(libvirtd: Libvirtd, tmp_path: Path) -> None:
    for name in ("web1", "db"):
        libvirtd.start_guest(name)
    before = {name: weight(libvirtd, name) for name in ("web1", "db")}
    weighing = engine(libvirtd, tmp_path)
    assert len(weighing.apply(ASKED).made) == 1
    assert weight(libvirtd, "web1") == 300 != before["web1"]
    assert weight(libvirtd, "db") == before["db"]
    again = weighing.apply(ASKED)
    assert again.made == ()
    assert [line for line in weighing.verify(again, ASKED, False) if "300" in str(line)]
    weighing.restore()
    assert {name: weight(libvirtd, name) for name in ("web1", "db")} == before


def test_a_guest_that_another_weighs_is_left_alone(libvirtd: Libvirtd, tmp_path: Path) -> None:
    uuid = libvirtd.start_guest("web1", extra_xml=OWN)
    with libvirtd.connection() as connection:
        connection.defineXML(connection.lookupByUUIDString(uuid).XMLDesc(0))
    said = lines(engine(libvirtd, tmp_path), ASKED)
    assert "verify: note: vm_blkio: web1: not changed, its XML sets weights itself" in said
    assert weight(libvirtd, "web1") == 777


def test_a_weight_is_forgotten_with_its_guest(libvirtd: Libvirtd, tmp_path: Path) -> None:
    libvirtd.start_guest("web1")
    weighing = engine(libvirtd, tmp_path)
    weighing.apply(ASKED)
    libvirtd.stop_guest("web1")
    libvirtd.start_guest("web1")
    restored = weighing.restore()
    assert restored.made == ()
    assert weighing.originals.record("vm_blkio").originals == {}


def test_a_guest_started_later_is_weighed(libvirtd: Libvirtd, tmp_path: Path) -> None:
    runner = PlanRunner(engine(libvirtd, tmp_path))
    runner.apply(ASKED)
    try:
        libvirtd.start_guest("web2")
        wait_for("its weight", lambda: weight(libvirtd, "web2") == 300, 15)
    finally:
        runner.restore()
    assert weight(libvirtd, "web2") != 300


def test_weights_of_devices_are_set_or_refused_in_libvirts_words(
    libvirtd: Libvirtd, tmp_path: Path
) -> None:
    """libvirt 9.0 sets them by io.weight and CFQ's files, which not every kernel has; tests/vm has
    a kernel that does."""
    libvirtd.start_guest("web1")
    weighing = engine(libvirtd, tmp_path)
    with loops(1) as names, attached(names[0]) as node:
        asked = parse_sections([Section("", {"device_weights": f"{node},400"}, devices="web1")])
        said = lines(weighing, asked)
        has = f"{node},400" in parameters(libvirtd, "web1")["device_weight"]
        wanted = "verify: passed:" if has else "verify: failed:"
        (told,) = [line for line in said if str(node) in line]
        assert told.startswith(wanted)
        assert has or "device weight is valid only for" in told or "not supported" in told
        weighing.restore()
        own = f"{node},{weight(libvirtd, 'web1')}"
        assert parameters(libvirtd, "web1")["device_weight"] in ("", own)


def seeing(root: Path, disks: Iterable[str]) -> KernelFS:
    """This machine's cgroup controllers, and of its disks these alone: others may heed weights."""
    for path in (*(f"sys/block/{disk}" for disk in disks), *CONTROLLER_FILES):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(f"/{path}")
    return KernelFS(root)


def test_whether_weights_have_an_effect_is_said(libvirtd: Libvirtd, tmp_path: Path) -> None:
    libvirtd.start_guest("web1")
    with loops(1) as names:
        asking = engine(libvirtd, tmp_path / "state", seeing(tmp_path / "root", names))
        for scheduler, notes in (("mq-deadline", 1), ("bfq", 0)):
            set_all(names, scheduler)
            said = [line for line in lines(asking, ASKED) if "weights have no effect" in line]
            assert len(said) == notes, (scheduler, said)
    asking.restore()


def test_without_a_cgroup_of_its_own_a_guest_is_said_to_have_no_weight(tmp_path: Path) -> None:
    with Libvirtd() as bare:
        bare.start_guest("web1")
        said = lines(engine(bare, tmp_path), ASKED)
    why = "libvirt has no I/O cgroup for this guest: see cgroup_controllers"
    assert [line for line in said if line.startswith("verify: failed:") and why in line]


PROFILE = "[main]\nsummary=weights\n[vm_blkio]\ndevices=web*\nblkio_weight=300\n"


def test_under_tuned(tuned: Callable[..., Sandbox], version: str) -> None:
    t = tuned(version, profiles={"mine": PROFILE})
    with no_partition_left(), Libvirtd(t, controllers=CONTROLLERS) as inside:
        inside.start_guest("web1")
        before = weight(inside, "web1")
        t.switch("mine")
        assert weight(inside, "web1") == 300 != before
        assert t.verify(), t.verify_lines
        inside.start_guest("web2")
        wait_for("the later guest's weight", lambda: weight(inside, "web2") == 300, 15)
        t.kill9()
        t.start()
        t.off()
        assert [weight(inside, name) for name in ("web1", "web2")] == [before] * 2
