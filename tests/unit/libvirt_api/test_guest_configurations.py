# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests as they will start next, and whether vm_pinning has placed those that run."""

from __future__ import annotations

import pytest

from tests.unit.libvirt_api.fake_binding import URI, FakeDomain, install
from tuned_virt.libvirt_api import guest_configurations
from tuned_virt.libvirt_api.guest_configurations import GuestConfiguration

TAGGED = """<domain><metadata><placement xmlns='urn:tuned-virt-plus:placement:1' vcpus='0=1'/>
</metadata><cputune><vcpupin vcpu='0' cpuset='1'/></cputune></domain>"""


def test_configurations_are_read_and_transient_guests_as_they_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = install(monkeypatch)
    fake.capabilities = "<capabilities/>"
    off, persistent, transient = fake.domains = [
        FakeDomain(-1, "off", "<domain/>", "uuid-off"),
        FakeDomain(2, "persistent", TAGGED),
        FakeDomain(3, "transient", "<domain id='3'/>"),
    ]
    persistent.persistent, persistent.inactive = True, "<domain type='kvm'/>"
    found = guest_configurations.read(URI)
    assert found is not None
    assert found.capabilities == "<capabilities/>"
    assert found.guests == (
        GuestConfiguration("off", off.xml, running=False, uuid=off.uuid),
        GuestConfiguration(
            "persistent", "<domain type='kvm'/>", running=True, placed=True, uuid=persistent.uuid
        ),
        GuestConfiguration("transient", transient.xml, running=True, uuid=transient.uuid),
    )
    assert fake.opened == ["read-only"]


def test_none_where_libvirt_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch).refuses = "no"
    monkeypatch.setattr("tuned_virt.kernel.timeouts.ONE_SHOT", 0.01)
    assert guest_configurations.read(URI) is None
