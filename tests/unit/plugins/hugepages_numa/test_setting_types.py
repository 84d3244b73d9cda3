# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings of huge pages and the texts that the originals keep of them."""

from __future__ import annotations

import pytest

from tuned_virt.plugins.hugepages_numa import setting_types
from tuned_virt.plugins.hugepages_numa.setting_types import (
    HugetlbMount,
    MountSetting,
    NotMounted,
    OvercommitSetting,
    PoolSetting,
    Setting,
    TransparentSetting,
    Value,
)

M2, G1 = 2048, 1 << 20
HUGE = MountSetting(M2, "/dev/huge")


@pytest.mark.parametrize(
    ("setting", "value", "name", "text"),
    [
        (PoolSetting(3, G1), 8, "pages_1G node3", "8"),
        (OvercommitSetting(64), 5, "overcommit_64K", "5"),
        (TransparentSetting("defrag"), "madvise", "defrag", "madvise"),
        (TransparentSetting("khugepaged_defrag"), "1", "khugepaged_defrag", "1"),
        (
            HUGE,
            HugetlbMount("/dev/huge", gid="36", mode="1770"),
            "mount_2M /dev/huge",
            "/dev/huge gid=36 mode=1770",
        ),
        (HUGE, NotMounted("/dev/huge"), "mount_2M /dev/huge", "absent"),
        (HUGE, NotMounted("/dev/huge", "/dev/huge"), "mount_2M /dev/huge", "absent, no folder"),
        (HUGE, NotMounted("/dev/huge", "/dev"), "mount_2M /dev/huge", "absent, no folder /dev"),
        (HUGE, NotMounted("/dev/huge", other_kib=G1), "mount_2M /dev/huge", "1048576 KiB pages"),
    ],
)
def test_originals_of_earlier_versions_are_read_and_written_as_they_were(
    setting: Setting, value: Value, name: str, text: str
) -> None:
    assert (str(setting), str(value)) == (name, text)
    assert setting_types.parse({name: text}) == {setting: value}
    assert type(next(iter(setting_types.parse({name: text})))) is type(setting)
