# SPDX-License-Identifier: GPL-2.0-or-later
"""Running guests in a preview: where each would be pinned, and its limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuned_virt.cli import planning_input, preview_guests
from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.planning_input import DescribedGuest
from tuned_virt.core.preview import SwitchPreview
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import guest_limits
from tuned_virt.libvirt_api.guest_limits import LimitsNow
from tuned_virt.libvirt_api.resource_tag import UNLIMITED
from tuned_virt.model.pins import Pins
from tuned_virt.model.topology import Host
from tuned_virt.plugins.vm_limits import policy as limits
from tuned_virt.plugins.vm_pinning import policy as pinning
from tuned_virt.tuned_api.preview.ours import GuestSection

DATA = Path(__file__).parents[2] / "data"
HOST = Host.from_xml((DATA / "hosts/two-nodes.xml").read_text())


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> None:
    named = [
        (name, DescribedGuest((DATA / f"guests/{name}.xml").read_text(), Pins()))
        for name in ("db", "web", "legacy", "huge")
    ]
    gathered = planning_input.of(HOST, named)
    monkeypatch.setattr(planning_input, "here", lambda _fs, _uri: gathered)


def pin(devices: str, **options: str) -> GuestSection:
    policy = pinning.parse({"running": "place", **options})
    return GuestSection("vm_pinning", devices, devices, policy)


def limit(devices: str, **options: str) -> GuestSection:
    return GuestSection("vm_limits", "vm_limits", devices, limits.parse(options))


def test_each_guest_has_the_first_section_that_selects_it(running: None) -> None:
    sections = [pin("web*", policy="none"), pin("*", policy="node")]
    found = SwitchPreview()
    seen = {one.placement.guest: one for one in preview_guests.guests(sections, found)}
    assert seen["web"].placement.chosen
    assert not seen["web"].changes
    assert seen["db"].placement.nodes
    assert seen["db"].changes
    assert seen["legacy"].placement.kind.value == "owner"


def test_a_guest_without_room_is_refused(running: None) -> None:
    found = SwitchPreview()
    preview_guests.guests([pin("*", policy="node", overcommit="1")], found)
    [refused] = found.refused
    assert refused.setting.startswith("a-guest")
    assert "not placed" in refused.reason


def test_observe_pins_nobody(running: None) -> None:
    found = SwitchPreview()
    assert preview_guests.guests([pin("*", observe="1")], found) == []
    assert "observe=1" in str(found.notes)


def test_limits_are_shown_and_harmful_ones_refused(
    running: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = LimitsNow({"hard_limit": UNLIMITED, "soft_limit": 3 << 20}, 1024)
    uuid = next(one.uuid for one in planning_input.here(KernelFS(), "").guests if one.name == "web")
    monkeypatch.setattr(guest_limits, "current", lambda _uri: {uuid: told})
    found = SwitchPreview()
    preview_guests.guests([limit("web", cpu_shares="256", memory_soft_limit="1G")], found)
    values = {(one.device, one.setting): str(one.after) for one in found.values}
    assert values["web", "cpu_shares"] == "256"
    assert values["web", "memory_soft_limit"] == f"{1 << 20} KiB"
    before = {one.setting: str(one.before) for one in found.values}
    assert before == {"cpu_shares": "1024", "memory_soft_limit": f"{3 << 20} KiB"}
    assert {one.device for one in found.values} == {"web"}
    found = SwitchPreview()
    preview_guests.guests([limit("web", memory_hard_limit="900%")], found)
    assert [str(one.before) for one in found.values] == ["unlimited"]
    monkeypatch.setattr(guest_limits, "current", lambda _uri: {uuid: LimitsNow(error="no cgroup")})
    found = SwitchPreview()
    preview_guests.guests([limit("web", cpu_shares="256")], found)
    assert [(str(one.before), one.before.why) for one in found.values] == [
        ("not known", "no cgroup")
    ]
    found = SwitchPreview()
    preview_guests.guests([limit("*", memory_hard_limit="1M")], found)
    assert found.values == []
    assert "needs at least" in str(found.refused)


def test_nothing_is_asked_of_libvirt_where_nothing_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(planning_input, "here")
    assert preview_guests.guests([limit("*")], SwitchPreview()) == []
    assert preview_guests.guests([], SwitchPreview()) == []


def test_a_host_that_cannot_be_read_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise CouldNot("this host: no CPUs")

    monkeypatch.setattr(planning_input, "here", refuse)
    found = SwitchPreview()
    assert preview_guests.guests([pin("*")], found) == []
    assert "no CPUs" in str(found.not_known)
