# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host tells: one part that cannot be read says why, and the rest is there."""

from __future__ import annotations

from tuned_virt.cli import collected
from tuned_virt.cli.common import CouldNot


def test_one_part_that_cannot_be_read_does_not_stop_the_rest() -> None:
    def refuses() -> None:
        raise CouldNot("libvirtd does not answer")

    def lacks() -> None:
        raise ModuleNotFoundError("x", name="dbus")

    def fails() -> None:
        raise PermissionError(13, "Permission denied")

    whys = [collected.tried(one).why for one in (refuses, lacks, fails)]
    assert whys[0] == "libvirtd does not answer"
    assert "dbus" in whys[1] and "Permission denied" in whys[2]
