# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from tuned_virt.cli.profile_questions import value
from tuned_virt.kernel.files import KernelFS
from tuned_virt.kernel.swap import swappiness

HEAD = "Filename\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
DISK = "/dev/sda2                               partition\t8388604\t\t0\t\t-2\n"
FILE = "/swap\\040file                           file\t\t8388604\t\t0\t\t5\n"
ZRAM = "/dev/zram0                              partition\t8388604\t\t0\t\t100\n"


@pytest.mark.parametrize(
    ("swaps", "zswap", "expected"),
    [
        (HEAD + DISK, "N", "10"),
        (HEAD + FILE, "", "10"),
        (HEAD + ZRAM, "N", "133"),
        (HEAD + DISK + ZRAM, "N", "133"),
        (HEAD + ZRAM.replace("100", "-3") + DISK, "N", "10"),
        (HEAD + DISK, "Y", "133"),
        (HEAD + ZRAM + DISK.replace("-2", "100"), "N", "10"),  # used in turn
        (HEAD + DISK.replace("-2", "0") + ZRAM.replace("100", "-2"), "N", "10"),  # OpenWrt 4304
        (HEAD + DISK + ZRAM.replace("100", "5") + ZRAM.replace("zram0", "zram1"), "N", "133"),
        (
            HEAD + ZRAM.replace("/dev", "/dev/block").replace("zram0", r"zram0\040(deleted)"),
            "",
            "133",
        ),
        (HEAD, "Y", "10"),
        ("", "", "10"),
    ],
)
def test_swappiness_by_where_swap_is(tmp_path: Path, swaps: str, zswap: str, expected: str) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/swaps").write_text(swaps)
    if zswap:
        folder = tmp_path / "sys/module/zswap/parameters"
        folder.mkdir(parents=True)
        (folder / "enabled").write_text(f"{zswap}\n")
    assert swappiness(KernelFS(tmp_path), "10") == expected


def test_a_profile_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "variables.conf"
    file.write_text("swappiness=auto\n")
    monkeypatch.setattr("tuned_virt.kernel.swap.swappiness", lambda _fs, default: f"of {default}")
    assert value(str(file), "swappiness", "10") == "of 10"
    file.write_text("swappiness=7\n")
    assert value(str(file), "swappiness", "10") == "7"
