# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sandbox import wait_for
from tests.unit.libvirt_api.fake_binding import URI, FakeLibvirt, install
from tuned_virt.core.originals import OriginalsError
from tuned_virt.kernel.files import KernelFileError
from tuned_virt.libvirt_api import worker
from tuned_virt.libvirt_api.errors import LibvirtError
from tuned_virt.libvirt_api.worker import GuestsView, LibvirtWorker


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLibvirt]:
    monkeypatch.setattr(worker, "FIRST_RETRY", 0.01)
    yield install(monkeypatch)


class Failing:
    """Cannot read what it needs at its first turn."""

    defined = False

    def __init__(self, error: Exception) -> None:
        self.error, self.turns = error, 0

    def reconcile(self, view: GuestsView) -> float | None:
        self.turns += 1
        if self.turns == 1:
            raise self.error
        return None

    def unreachable(self, why: str) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    "error",
    [
        OriginalsError("cannot read baseline.json: Too many open files"),
        KernelFileError("/sys/x", "Too many open files"),
        LibvirtError("Too many open files"),
    ],
)
def test_what_cannot_be_read_now_is_said_and_tried_again(
    error: Exception, fake: FakeLibvirt, caplog: pytest.LogCaptureFixture
) -> None:
    one, failing = LibvirtWorker(URI), Failing(error)
    one.register(failing)
    wait_for("a second turn", lambda: failing.turns > 1)
    one.unregister(failing)
    assert "Too many open files" in caplog.text
    assert "internal error" not in caplog.text
