# SPDX-License-Identifier: GPL-2.0-or-later
"""What a balloon keeps of a guest's memory."""

from __future__ import annotations

import pytest

from tests.unit.model.guest.xml import guest

GIB = 1 << 20


def pluggable(size: int, requested: int, current: int) -> str:
    return (
        f"<memory model='virtio-mem'><target><size unit='GiB'>{size}</size><node>0</node>"
        f"<requested unit='GiB'>{requested}</requested><current unit='GiB'>{current}</current>"
        "</target></memory>"
    )


@pytest.mark.parametrize(
    ("memory", "current", "devices", "ballooned"),
    [
        (100, None, "", 0),
        (100, 100, "", 0),
        (100, 8, "", 92),
        (4, 8, "", 0),
        (260, 260, pluggable(256, 0, 0), 0),
        (260, 4, pluggable(256, 0, 0), 0),
        (260, 36, pluggable(256, 32, 32), 0),
        (260, 4, pluggable(256, 32, 0), 0),
        (260, 3, pluggable(256, 0, 0), 1),
    ],
)
def test_what_current_memory_leaves_out(
    memory: int, current: int | None, devices: str, ballooned: int
) -> None:
    """Virtio-mem that is not there, or on its way, is not what a balloon keeps."""
    now = "" if current is None else f"<currentMemory unit='GiB'>{current}</currentMemory>"
    found = guest(
        f"<memory unit='GiB'>{memory}</memory>{now}", more=f"<devices>{devices}</devices>"
    )
    assert found.ballooned == ballooned * GIB
