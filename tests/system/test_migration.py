# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that TuneD has placed, limited and weighed is migrated live to a libvirtd and back."""

from __future__ import annotations

import subprocess
import tempfile
import uuid as uuids
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.faults.world import kept
from tests.libvirtd import Libvirtd
from tests.pinners import affinities
from tests.sandbox import REPO, Sandbox, wait_for
from tests.system.test_blkio import no_partition_left
from tests.system.test_hook import install
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import placement_tag, resource_tag
from tuned_virt.model.pins import Pins
from tuned_virt.plugins.vm_blkio.plugin import has_controller

pytestmark = pytest.mark.skipif(
    not has_controller(KernelFS()), reason="this kernel has no cgroup controller for block I/O"
)

CONTROLLERS = '"cpu","memory","blkio"'

PROFILE = """[main]
summary=pins, limits and weights
[vm_pinning]
devices=moves
policy=dedicated
housekeeping=0
running=place
[vm_limits]
memory_soft_limit=64M
cpu_shares=55
[vm_blkio]
blkio_weight=300
"""

OURS = {"soft_limit": 64 << 10, "cpu_shares": 55, "weight": 300}
DEDICATED = "1"

STATE = "run/tuned-virt"


@pytest.fixture(scope="session", autouse=True)
def ksm_stopped() -> None:
    """These guests need nothing of KSM: it is left alone."""


@pytest.fixture
def source() -> Iterator[tuple[Sandbox, Libvirtd]]:
    """Where TuneD runs, without a profile."""
    with (
        no_partition_left(),
        Sandbox("latest", profiles={"mine": PROFILE}) as t,
        Libvirtd(t, controllers=CONTROLLERS) as private,
    ):
        yield t, private
        private.forget_guests()  # a control group that stays limits the next guest of its name


@pytest.fixture
def target(source: tuple[Sandbox, Libvirtd]) -> Iterator[Libvirtd]:
    """Another libvirtd, with the hook and without a TuneD."""
    with Libvirtd(controllers=CONTROLLERS) as private:
        install(private)
        yield private


@pytest.fixture
def shared(source: tuple[Sandbox, Libvirtd]) -> Iterator[Path]:
    """A folder that is the same for both libvirtds, for a migration's sockets."""
    _, private = source
    remount = ["mount", "-o", "remount,bind,rw", str(REPO)]
    subprocess.run(private.command(remount), check=True)
    with tempfile.TemporaryDirectory(dir=REPO / "build") as folder:
        yield Path(folder)


def migrate(name: str, source: Libvirtd, target: Libvirtd, folder: Path) -> str:
    """Live; its XML there."""
    with source.connection() as here, target.connection() as there:
        flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_UNSAFE
        parameters = {libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{folder}/{uuids.uuid4()}"}
        moved = here.lookupByName(name).migrate3(there, parameters, flags)
        xml: str = moved.XMLDesc(0)
        return xml


def resources(private: Libvirtd, name: str) -> dict[str, Any]:
    """Its limits and weights, as they are in its control groups."""
    with private.connection() as connection:
        domain = connection.lookupByName(name)
        told = {
            **domain.memoryParameters(0),
            **domain.schedulerParameters(),
            **domain.blkioParameters(0),
        }
    return {limit: told[limit] for limit in OURS}


def cpus(private: Libvirtd, name: str) -> set[str]:
    """Where its vCPU and its emulator may run."""
    pid = private.guest_pid(name)
    return {
        allowed
        for thread, allowed in affinities(pid).items()
        if thread.startswith("CPU ") or thread.endswith(f" {pid}")
    }


def remembered(t: Sandbox, uuid: str) -> list[str]:
    """Files of ours that still name a guest."""
    return [file.name for file in (t.root / STATE).glob("*.json") if uuid in file.read_text()]


def test_a_tuned_guest_leaves_and_comes_back(
    source: tuple[Sandbox, Libvirtd], target: Libvirtd, shared: Path
) -> None:
    t, here = source
    uuids_of = {name: here.start_guest(name) for name in ("stays", "moves")}
    before = {name: (cpus(here, name), resources(here, name)) for name in uuids_of}
    everywhere, plain = before["moves"]

    def tuned() -> bool:
        return DEDICATED in cpus(here, "moves") and resources(here, "moves") == OURS

    t.switch("mine")
    wait_for("all is set", lambda: tuned() and t.verify())
    with here.connection() as connection:
        xml = connection.lookupByName("moves").XMLDesc(0)
    assert placement_tag.read(xml)[0].vcpus == {0: DEDICATED}
    assert resource_tag.read(xml)[0] == OURS, xml
    assert remembered(t, uuids_of["moves"])

    xml = migrate("moves", here, target, shared)
    assert placement_tag.read(xml)[1] == Pins({})
    assert not resource_tag.read(xml)[1].keys() & OURS.keys(), xml
    assert "tuned-virt" not in xml
    assert (cpus(target, "moves"), resources(target, "moves")) == (everywhere, plain)
    wait_for("forgotten", lambda: not remembered(t, uuids_of["moves"]))
    assert remembered(t, uuids_of["stays"])
    assert resources(here, "stays") == OURS
    wait_for("verified without it", t.verify)

    xml = migrate("moves", target, here, shared)
    wait_for("all is set again", lambda: tuned() and t.verify())
    t.off()
    wait_for("nothing is kept", lambda: not kept(t))
    assert {name: (cpus(here, name), resources(here, name)) for name in uuids_of} == before
