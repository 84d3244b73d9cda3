# SPDX-License-Identifier: GPL-2.0-or-later
"""persist=config|both on real persistent guests: their configurations there and back, exactly."""

from __future__ import annotations

import os
import uuid as uuids
from typing import Any

import libvirt
import pytest

from tests.libvirtd import GUEST, Libvirtd
from tests.pinners import affinities, pinning
from tests.sandbox import wait_for
from tuned_virt.core.engine import Result
from tuned_virt.core.journal import Journal
from tuned_virt.guests.restore import LibvirtQuestions
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import placement_tag
from tuned_virt.model.pins import Pins
from tuned_virt.plugins.vm_pinning.configured_guest import RECORD
from tuned_virt.plugins.vm_pinning.plugin import ConfigurationRestore

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="pins need two CPUs to differ")

OTHERS = """<iothreads>1</iothreads>
<metadata><m:mine xmlns:m="urn:mine" note="a &quot;b&quot; &lt;c>"><m:x/></m:mine></metadata>
<description>of &lt;its&gt; owner's</description>"""
LISTED = "<iothreads>1</iothreads><iothreadids><iothread id='1'/></iothreadids>"
"""As libvirt itself writes them out, but of its owner's."""

INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE


@pytest.fixture(scope="session", autouse=True)
def ksm_stopped() -> None:
    """These guests need nothing of KSM: it is left alone."""


def define(connection: Any, name: str, extra: str = OTHERS) -> Any:
    return connection.defineXML(
        GUEST.format(name=name, uuid=uuids.uuid4(), mib=16, extra_xml=extra)
    )


def configuration(domain: Any) -> str:
    xml: str = domain.XMLDesc(INACTIVE)
    return xml


def configured(domain: Any) -> Pins:
    """Pins of ours in a guest's configuration."""
    ours, present = placement_tag.read(configuration(domain))
    assert ours == present
    return ours


PINS = Pins({0: "1"}, "0", {1: "0"}, None)


@pytest.mark.parametrize("extra", [OTHERS, LISTED, ""])
def test_both_is_there_and_back_exactly(libvirtd: Libvirtd, connection: Any, extra: str) -> None:
    guest = define(connection, "kept", extra)
    before = configuration(guest)
    with pinning(libvirtd.uri, persist="both") as pinner:
        guest.create()
        pinner.wait_pinned(guest.UUIDString())
        wait_for("configured", lambda: bool(configured(guest)))
        assert configured(guest).vcpus == PINS.vcpus
        assert pinner.baseline.record(RECORD).originals
        [finding] = pinner.verify()
        assert finding.result is Result.PASSED, finding
        guest.destroy()
        assert configured(guest).vcpus == PINS.vcpus, "it is for the next start"
        guest.create()
        assert "1" in affinities(libvirtd.guest_pid("kept")).values(), "pinned from the start"
        pinner.wait_pinned(guest.UUIDString())
        assert pinner.off()
        assert configuration(guest) == before
        assert not pinner.baseline.all()
        assert "1" not in affinities(libvirtd.guest_pid("kept")).values()


def test_a_guest_that_does_not_run_goes_back_too(libvirtd: Libvirtd, connection: Any) -> None:
    guest = define(connection, "stopped")
    before = configuration(guest)
    with pinning(libvirtd.uri, persist="both") as pinner:
        guest.create()
        wait_for("configured", lambda: configured(guest) == PINS)
        guest.destroy()
        assert pinner.off()
        assert configuration(guest) == before


def test_config_leaves_a_guest_until_it_starts_anew(libvirtd: Libvirtd, connection: Any) -> None:
    guest = define(connection, "later")
    guest.create()
    live = guest.XMLDesc(0)
    with pinning(libvirtd.uri, persist="config", running="place") as pinner:
        wait_for("configured", lambda: configured(guest) == PINS)
        assert guest.XMLDesc(0) == live
        [finding] = pinner.verify()
        assert finding.result is Result.NOTE
        assert "when it starts again, shared on node 0 (persist=config)" in str(finding)
        guest.destroy()
        guest.create()
        pinner.wait_pinned(guest.UUIDString())
        [finding] = pinner.verify()
        assert finding.result is Result.PASSED, finding


def test_the_owners_edit_stays_and_is_said(
    libvirtd: Libvirtd, connection: Any, caplog: pytest.LogCaptureFixture
) -> None:
    guest = define(connection, "edited")
    before = configuration(guest)
    with pinning(libvirtd.uri, persist="both") as pinner:
        guest.create()
        wait_for("configured", lambda: configured(guest) == PINS)
        guest.pinEmulator((True, True), libvirt.VIR_DOMAIN_AFFECT_CONFIG)
        with caplog.at_level("INFO", "tuned"):
            assert pinner.off()
        ours, present = placement_tag.read(configuration(guest))
        assert (ours, present) == (Pins(), Pins(emulator="0-1"))
        assert "its owner has changed it since, and that is kept: emulator on 0-1" in caplog.text
        pin = "  <cputune>\n    <emulatorpin cpuset='0-1'/>\n  </cputune>\n"
        assert configuration(guest).replace(pin, "") == before


def test_what_the_owner_has_configured_is_left(libvirtd: Libvirtd, connection: Any) -> None:
    guest = define(connection, "owned")
    guest.create()
    guest.pinVcpuFlags(0, (True, False), libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    before = configuration(guest)
    with pinning(libvirtd.uri, persist="both", running="place") as pinner:
        pinner.wait_pinned(guest.UUIDString())
        wait_for(
            "said", lambda: "its configuration contains pins of its owner" in str(pinner.verify())
        )
        assert configuration(guest) == before


def test_a_transient_guest_has_none(libvirtd: Libvirtd, connection: Any) -> None:
    with pinning(libvirtd.uri, persist="both") as pinner:
        pinner.wait_pinned(libvirtd.start_guest("transient"))
        wait_for("said", lambda: "it is transient" in str(pinner.verify()))


def test_restore_without_tuned(libvirtd: Libvirtd, connection: Any) -> None:
    guest = define(connection, "killed")
    before = configuration(guest)
    with pinning(libvirtd.uri, persist="both") as pinner:
        guest.create()
        wait_for("configured", lambda: configured(guest) == PINS)
        guest.destroy()
        wait_for("forgotten", lambda: not pinner.held())
        journal = Journal(pinner.folder / "journal")
        with LibvirtQuestions() as libvirt:
            ConfigurationRestore().restore(KernelFS(), pinner.baseline, journal, libvirt)
        assert configuration(guest) == before
        assert RECORD not in pinner.baseline.all()


@pytest.mark.parametrize("extra", [OTHERS, LISTED])
def test_after_a_reboot_live_takes_out_what_both_has_written(
    libvirtd: Libvirtd, connection: Any, extra: str
) -> None:
    """The baseline is gone then; the tag in the configuration is not."""
    guest = define(connection, "rebooted", extra)
    before = configuration(guest)
    with pinning(libvirtd.uri, persist="both") as pinner:
        guest.create()
        wait_for("configured", lambda: configured(guest) == PINS)
        tagged = configuration(guest)
        guest.destroy()
    guest = connection.defineXML(tagged)
    with pinning(libvirtd.uri) as pinner:
        guest.create()
        pinner.wait_pinned(guest.UUIDString())
        wait_for("taken out", lambda: configuration(guest) == before)
