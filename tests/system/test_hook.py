# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's `qemu` hook with real save images, and a migration between two libvirtds."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.libvirtd import Libvirtd
from tests.pinners import pinning
from tests.sandbox import REPO, wait_for
from tuned_virt.libvirt_api import guest_limits, placement_tag
from tuned_virt.libvirt_api.worker import GuestsView, OneShotClient, libvirt_worker
from tuned_virt.model.pins import Pins

HOOK = "/etc/libvirt/hooks/qemu.d"
SITE = "/usr/lib/python3/dist-packages"

INSTALL = f"""
mkdir -p {HOOK} /run/upper/site /run/work/site
cp {REPO}/hooks/qemu.d/tuned-virt {HOOK}/tuned-virt
mount -t overlay -o lowerdir={SITE},upperdir=/run/upper/site,workdir=/run/work/site overlay {SITE}
rm -rf {SITE}/tuned_virt
cp -r {REPO}/tuned_virt {SITE}/tuned_virt
"""

OWNERS = "<cputune><vcpupin vcpu='0' cpuset='0'/></cputune>"
HERE = Pins({0: "1"}, "0-1")
ELSEWHERE = Pins({0: "9"}, "8-9", memory=("restrictive", "1"))
"""As on a host with more CPUs and nodes than this one."""


@pytest.fixture(scope="session", autouse=True)
def ksm_stopped() -> None:
    """These guests need nothing of KSM: it is left alone."""


@pytest.fixture(scope="module")
def hooked() -> Iterator[Libvirtd]:
    with Libvirtd() as private:
        install(private)
        yield private


@pytest.fixture
def limiting() -> Iterator[Libvirtd]:
    """With control groups, so that guests can be limited."""
    with Libvirtd(controllers='"cpu","memory"') as private:
        install(private)
        yield private


@pytest.fixture
def image() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield f"{folder}/guest.save"


def install(private: Libvirtd) -> None:
    assert os.spawnvp(os.P_WAIT, "nsenter", private.command(["sh", "-euc", INSTALL])) == 0
    private.restart()


def start_pinned(private: Libvirtd, name: str, extra_xml: str = "") -> None:
    """A guest that is pinned and tagged as vm_pinning does it."""
    private.start_guest(name, extra_xml=extra_xml)
    with private.connection() as connection:
        domain = connection.lookupByName(name)
        domain.pinVcpu(0, (False, True))
        domain.pinEmulator((True, True), 0)
        live = libvirt.VIR_DOMAIN_AFFECT_LIVE
        domain.setMetadata(
            2, placement_tag.text(HERE), placement_tag.KEY, placement_tag.NAMESPACE, live
        )


def as_from_a_larger_host(xml: str) -> str:
    """The XML with the same pins as they would be there."""
    old, new = placement_tag.text(HERE), placement_tag.text(ELSEWHERE)
    strip = re.escape(old[len("<placement ") : -2])
    found = re.subn(strip, new[len("<placement ") : -2].replace("\\", ""), xml)
    assert found[1] == 1, xml
    xml = found[0].replace("<vcpupin vcpu='0' cpuset='1'/>", "<vcpupin vcpu='0' cpuset='9'/>")
    xml = xml.replace("<emulatorpin cpuset='0-1'/>", "<emulatorpin cpuset='8-9'/>")
    memory = "<numatune><memory mode='restrictive' nodeset='1'/></numatune>"
    return xml.replace("</cputune>", f"</cputune>{memory}")


def save(private: Libvirtd, name: str, image: str) -> None:
    with private.connection() as connection:
        connection.lookupByName(name).save(image)
        xml = connection.saveImageGetXMLDesc(image, 0)
        connection.saveImageDefineXML(image, as_from_a_larger_host(xml), 0)


def restore(private: Libvirtd, name: str, image: str) -> str:
    """Its XML once it runs again."""
    with private.connection() as connection:
        connection.restore(image)
        xml: str = connection.lookupByName(name).XMLDesc(0)
        connection.lookupByName(name).destroy()
        return xml


@contextlib.contextmanager
def hook_away(private: Libvirtd) -> Iterator[None]:
    """libvirt looks for hooks when it starts."""

    def rename(old: str, new: str) -> None:
        folder = Path(f"/proc/{private.pid}/root{HOOK}")
        (folder / old).rename(folder / new)
        (folder / new).chmod(0o644 if new == "away" else 0o755)
        private.restart()

    rename("tuned-virt", "away")
    try:
        yield
    finally:
        rename("away", "tuned-virt")


def test_a_saved_guest_starts_on_a_smaller_host(hooked: Libvirtd, image: str) -> None:
    start_pinned(hooked, "saved")
    save(hooked, "saved", image)
    with hook_away(hooked), pytest.raises(libvirt.libvirtError, match=r"NUMA|CPU|affinity|cpuset"):
        restore(hooked, "saved", image)
    xml = restore(hooked, "saved", image)
    for ours in ("vcpupin", "emulatorpin", "restrictive", "tuned-virt"):
        assert ours not in xml


def test_what_the_owner_pinned_stays(hooked: Libvirtd, image: str) -> None:
    hooked.start_guest("owners", extra_xml=OWNERS)
    with hooked.connection() as connection:
        connection.lookupByName("owners").save(image)
    assert "<vcpupin vcpu='0' cpuset='0'/>" in restore(hooked, "owners", image)


OWNERS_WEIGHT = "<cputune><shares>70</shares></cputune>"


def test_our_limits_are_not_restored_with_a_guest_and_its_owners_are(
    limiting: Libvirtd, image: str
) -> None:
    uuid = limiting.start_guest("limited", extra_xml=OWNERS_WEIGHT)
    ours = {"soft_limit": 65536}

    def limit(view: GuestsView) -> dict[str, str]:
        return guest_limits.apply(view.connection, view.guests[uuid], ours, None)

    with OneShotClient(libvirt_worker(limiting.uri)) as client:
        assert client.ask(limit, 10) == {}
    with limiting.connection() as connection:
        domain = connection.lookupByName("limited")
        for word in ("soft_limit", "<shares>70<", "urn:tuned-virt-plus:limits:1"):
            assert word in domain.XMLDesc(0)
        domain.save(image)
    xml = restore(limiting, "limited", image)
    assert "<shares>70</shares>" in xml
    for word in ("soft_limit", "tuned-virt"):
        assert word not in xml


def migrate(name: str, source: Libvirtd, target: Libvirtd) -> Any:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        here, there = (stack.enter_context(one.connection()) for one in (source, target))
        domain = here.lookupByName(name)
        flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_UNSAFE
        parameters = {libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{folder}/socket"}
        return domain.migrate3(there, parameters, flags).XMLDesc(0)


def test_a_migrated_guest_loses_our_pins_on_the_way(hooked: Libvirtd) -> None:
    with Libvirtd() as source:
        start_pinned(source, "moves")
        xml = migrate("moves", source, hooked)
        for ours in ("vcpupin", "emulatorpin", "tuned-virt"):
            assert ours not in xml
        with hooked.connection() as connection:
            assert connection.lookupByName("moves").vcpuPinInfo(0) == [(True, True)]


def test_a_migrated_guest_is_let_go_here_and_pinned_there(hooked: Libvirtd) -> None:
    with Libvirtd() as source, pinning(source.uri) as here, pinning(hooked.uri) as there:
        uuid = source.start_guest("placed")
        here.wait_pinned(uuid)
        migrate("placed", source, hooked)
        there.wait_pinned(uuid)
        wait_for("let go", lambda: not here.held() and not here.baseline.all())
        assert there.off()
        with hooked.connection() as connection:
            assert connection.lookupByName("placed").vcpuPinInfo(0) == [(True, True)]
            connection.lookupByName("placed").destroy()
