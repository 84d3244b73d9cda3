# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine is: a guest, a host of a manager, and what of it cannot be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuned_virt.cli import host_role
from tuned_virt.kernel import systemd
from tuned_virt.kernel.files import KernelFS


def test_a_managers_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "role", lambda fs: "host")
    assert host_role.read(KernelFS(tmp_path)).manager == ""
    (tmp_path / "etc/vdsm").mkdir(parents=True)
    (tmp_path / "etc/vdsm/vdsm.conf").touch()
    found = host_role.read(KernelFS(tmp_path))
    assert (found.manager, found.in_guest.get()) == ("oVirt", False)


def test_what_cannot_be_told_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: KernelFS) -> str:
        raise systemd.RoleUnknown("systemd-detect-virt: No such file or directory")

    monkeypatch.setattr(systemd, "role", unknown)
    found = host_role.read(KernelFS(tmp_path))
    assert found.in_guest.why == "systemd-detect-virt: No such file or directory"
