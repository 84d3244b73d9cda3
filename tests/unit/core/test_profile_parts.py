# SPDX-License-Identifier: GPL-2.0-or-later
"""Which parts of a profile are included, by the settings."""

from __future__ import annotations

import pytest

from tuned_virt.core.profile_parts import wanted

TUNING, BOOT = "virt-plus-host", "virt-plus-boot"


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, (TUNING,)),
        ({"observe": ""}, (TUNING,)),
        ({"observe": "False", "swappiness": "0"}, (TUNING,)),
        ({"hugepages_boot": "never"}, (TUNING,)),
        ({"power": "stock", "read_ahead": "stock"}, (TUNING,)),
        ({"power": "balanced"}, (TUNING, "virt-plus-power-balanced")),
        ({"power": "keep", "observe": "0"}, (TUNING, "virt-plus-power-keep")),
        ({"power": "keep", "observe": "1"}, ()),
        ({"read_ahead": "keep"}, (TUNING, "virt-plus-read-ahead-keep")),
        ({"swappiness": "auto"}, (TUNING,)),
        ({"dirty_background_bytes": "67108864"}, (TUNING, f"{TUNING}-background-bytes")),
        (
            {"dirty_bytes": "8192", "dirty_background_bytes": "1", "power": "stock"},
            (TUNING, f"{TUNING}-background-bytes", f"{TUNING}-dirty-bytes"),
        ),
        (
            {"dirty_background_bytes": "1", "dirty_background_ratio": "5"},
            (TUNING, f"{TUNING}-background-bytes"),
        ),
        ({"dirty_bytes": "", "observe": "0"}, (TUNING,)),
        ({"dirty_bytes": "9999", "observe": "1"}, ()),
        ({"hugepages_boot": "auto"}, (TUNING, BOOT)),
        ({"hugepages_boot": " auto "}, (TUNING, BOOT)),
        ({"observe": "1", "hugepages_boot": "auto"}, ()),
        ({"observe": "Yes", "swappiness": "abc"}, ()),
    ],
)
def test_parts_that_settings_ask_for(settings: dict[str, str], names: tuple[str, ...]) -> None:
    found = wanted(TUNING, settings)
    assert (found.names, found.errors) == (names, ())


@pytest.mark.parametrize(
    ("settings", "names", "said"),
    [
        ({"observe": "maybe", "hugepages_boot": "auto"}, (), "observe"),
        ({"swappiness": "201"}, (), "a whole number from 0 to 200"),
        ({"swappiness": "abc", "hugepages_boot": "auto"}, (BOOT,), "swappiness"),
        ({"dirty_ratio": "0"}, (), "dirty_ratio"),
        ({"dirty_background_ratio": "5%"}, (), "dirty_background_ratio"),
        ({"arp_filter": "2"}, (), "one of 0, 1"),
        ({"swappiness": "Auto"}, (), "a whole number from 0 to 200, or auto"),
        ({"dirty_bytes": "64M"}, (), "a whole number from 8192 to"),
        ({"read_ahead": "4096"}, (TUNING,), "one of stock, keep"),
        ({"power": "save"}, (TUNING,), "one of stock, balanced, keep"),
        ({"hugepages_boot": "Auto"}, (TUNING,), "one of never, auto"),
    ],
)
def test_a_part_with_a_setting_that_is_not_valid_is_left_out(
    settings: dict[str, str], names: tuple[str, ...], said: str
) -> None:
    found = wanted(TUNING, settings)
    assert found.names == names
    [error] = found.errors
    assert said in str(error)
