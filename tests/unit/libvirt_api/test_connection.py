# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection's registrations: those that are needed, and none that is left behind."""

from __future__ import annotations

import errno
import os
import queue
from typing import Any

import pytest

from tests.unit.libvirt_api.fake_binding import URI, FakeError, FakeLibvirt, install
from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.connection import NO_SUPPORT, Connection
from tuned_virt.libvirt_api.errors import LibvirtError

LIFECYCLE = FakeLibvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
    return install(monkeypatch)


def refuse(patch: pytest.MonkeyPatch, event: int, code: int) -> None:
    register = FakeLibvirt.domainEventRegisterAny

    def registered(self: FakeLibvirt, domain: None, number: int, *more: Any) -> Any:
        if number == event:
            raise FakeError("refused", code)
        return register(self, domain, number, *more)

    patch.setattr(FakeLibvirt, "domainEventRegisterAny", registered)


def opened() -> Connection:
    return Connection(URI, queue.SimpleQueue())


def test_guests_that_start_must_be_noticed(
    fake: FakeLibvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        refuse(patch, LIFECYCLE, 38)
        with pytest.raises(LibvirtError, match="refused"):
            opened()
    assert fake.open_connections == 0
    assert fake.callbacks == {}
    opened().close()


@pytest.mark.parametrize(
    ("event", "code"), [(LIFECYCLE, NO_SUPPORT), (FakeLibvirt.VIR_DOMAIN_EVENT_ID_TUNABLE, 38)]
)
def test_other_events_are_done_without(
    event: int, code: int, fake: FakeLibvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, event, code)
    opened().close()
    assert fake.open_connections == 0


def test_a_registration_that_cannot_be_taken_back_is_tried_again(
    fake: FakeLibvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is left holds the connection open."""
    link, refused = opened(), []
    deregister = FakeLibvirt.domainEventDeregisterAny

    def once(self: FakeLibvirt, event: tuple[str, int]) -> None:
        if event not in refused:
            refused.append(event)
            raise FakeError("refused")
        deregister(self, event)

    monkeypatch.setattr(FakeLibvirt, "domainEventDeregisterAny", once)
    link.close()
    assert fake.callbacks == {}
    assert fake.open_connections == 0


def test_a_process_short_of_descriptors_opens_no_connection(
    fake: FakeLibvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GLib ends the process where libvirt's client gets no descriptor for its event loop."""
    real, left = os.open, [binding.SPARE_FILES - 1]

    def few(*how: Any) -> int:
        if not left[0]:
            raise OSError(errno.EMFILE, "Too many open files")
        left[0] -= 1
        return real(*how)

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", few)
        with pytest.raises(LibvirtError, match="no connection to libvirt is opened: Too many"):
            opened()
    assert fake.open_connections == 0
    assert len(os.listdir("/proc/self/fd")) == before
    opened().close()
