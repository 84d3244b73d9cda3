# SPDX-License-Identifier: GPL-2.0-or-later
"""What this host's audit is made from: its guests' configurations, and what their agents say."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import pytest

from tuned_virt.audit.scene import AGENT
from tuned_virt.cli import audit_sources, disks
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import guest_agent, guest_configurations
from tuned_virt.libvirt_api.guest_configurations import Configurations, GuestConfiguration
from tuned_virt.model.host_facts import Fact

HOST = (Path(__file__).parents[2] / "data/hosts/two-nodes.xml").read_text()
WITH_AGENT = f"<domain><channel><target name='{AGENT}'/></channel></domain>"


@pytest.mark.parametrize("root", [True, False])
def test_only_agents_of_running_guests_are_asked_and_only_by_root(
    root: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Configurations(
        HOST,
        (
            GuestConfiguration("up", WITH_AGENT, running=True, uuid="u1"),
            GuestConfiguration("off", WITH_AGENT, running=False, uuid="u2"),
            GuestConfiguration("silent", "<domain/>", running=True, uuid="u3"),
        ),
    )
    asked: list[str] = []

    def profiles(uuids: Collection[str], uri: str) -> dict[str, Fact[str]]:
        asked.extend(uuids)
        return {uuid: Fact("virtual-guest", "") for uuid in uuids}

    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    monkeypatch.setattr(guest_configurations, "read", lambda uri: known)
    monkeypatch.setattr(guest_agent, "profiles", profiles)
    monkeypatch.setattr(disks, "backing", lambda fs: Fact({}, ""))
    found = audit_sources.read(KernelFS("/no/such/root"))
    up, off, silent = found.documents
    assert asked == (["u1"] if root else [])
    assert up.profile == (
        Fact("virtual-guest", "") if root else Fact(None, "only root may ask the guest agent")
    )
    assert off.profile == silent.profile == Fact()
    assert [one.name for one in found.documents] == ["up", "off", "silent"]


def test_without_libvirt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_configurations, "read", lambda uri: None)
    monkeypatch.setattr(disks, "backing", lambda fs: Fact({}, ""))
    found = audit_sources.read(KernelFS(tmp_path))
    assert found.host is None
    assert found.without_guests.startswith("libvirt is unavailable")
    assert [name for name, _ in found.unreadable] == ["host"]
