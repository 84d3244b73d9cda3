# SPDX-License-Identifier: GPL-2.0-or-later
"""Which devices a selection is for: one matcher for disks and guests."""

from __future__ import annotations

import pytest

from tuned_virt.core import device_filter
from tuned_virt.core.device_filter import device, selects

UUID = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1"


@pytest.mark.parametrize(
    ("expression", "name", "found"),
    [
        ("", "sda", True),
        ("*", "nvme0n1", True),
        ("nvme*", "nvme0n1", True),
        ("mmcblk*", "mmcblk0", True),
        ("sd*", "vda", False),
        ("sda, sdb", "sdb", True),
        ("sd* !sdb", "sdb", False),
        ("!sdb", "sdb", False),
        ("!sdb", "sda", True),
        ("cciss/c0d0", "cciss!c0d0", True),
        ("!cciss/c0d0", "cciss!c0d0", False),
        ("/dev/sda", "sdb", False),
        ("dm-0", "sda", True),
        ("!dm-0", "sda", True),
    ],
)
def test_devices_select_as_in_tuneds_disk_plugin(expression: str, name: str, found: bool) -> None:
    assert selects(expression, [name], ["dm-0"] if name == "sda" else []) is found


def test_udev_properties_select() -> None:
    properties = {"ID_BUS": "scsi", "ID_SERIAL": "x"}
    assert device_filter.matches_udev("^ID_BUS=scsi$", properties)
    assert not device_filter.matches_udev("^ID_BUS=ata$", properties)
    assert device_filter.matches_udev(r"scsi\nID_SERIAL=", properties)


@pytest.mark.parametrize(
    ("expression", "selected"),
    [
        ("*", True),
        ("", True),
        ("web*", True),
        ("db*,web1", True),
        ("db*", False),
        ("!web1", False),
        ("* !web1", False),
        (f"!{UUID}", False),
        (UUID, True),
        (UUID[:8] + "*", True),
        (None, False),
    ],
)
def test_guests_are_selected_by_name_and_uuid(expression: str | None, selected: bool) -> None:
    assert selects(expression, ["web1", UUID]) is selected


@pytest.mark.parametrize(
    ("name", "plain"),
    [("web1", True), ("..", True), ("web 1,web2", False), ("é", False), ("n" * 200, False)],
)
def test_a_name_that_tuned_cannot_be_told_gives_way_to_the_uuid(name: str, plain: bool) -> None:
    assert device(name, UUID) == (name if plain else UUID)


def test_a_guest_cannot_take_anothers_uuid_for_its_name() -> None:
    assert device(UUID, "1" + UUID[1:]) == "1" + UUID[1:]
