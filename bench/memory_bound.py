# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether huge pages help a memory-bound program in a guest: each way by turns, emulated (TCG).

    python -m bench.memory_bound [--rounds 5]

The guest's only process reads a word of each page of 256 MiB, in a random order and each read
needing the one before it (chase.c): what that costs is finding pages. Its memory is in pages of
4 KiB, in transparent huge pages, or in a pool of 2 MiB pages.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.figures import put_back, spread
from tests.vm import boot

SOURCE = Path(__file__).with_name("chase.c")
SERIES = "6.1"
MIB = 512
"""Of the guest."""

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")

WAYS = {
    "4 KiB": ("never", "memory-backend-ram"),
    "transparent": ("always", "memory-backend-ram"),
    "pool of 2 MiB": ("never", "memory-backend-memfd,hugetlb=on,hugetlbsize=2M"),
}
"""Transparent huge pages, and QEMU's backend, by way."""

LIMIT_SECONDS = 300


def initramfs(folder: Path) -> Path:
    """The guest's only file, /init."""
    subprocess.run(["gcc", "-O2", "-static", "-o", str(folder / "init"), str(SOURCE)], check=True)
    archive = folder / "initramfs"
    with archive.open("wb") as file:
        subprocess.run(
            ["cpio", "--quiet", "--create", "--format=newc"],
            cwd=folder,
            input=b"init\n",
            stdout=file,
            check=True,
        )
    return archive


def nanoseconds(backend: str, kernel: Path, archive: Path) -> float:
    """Of a read in a guest with memory of that kind."""
    command = [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", f"{MIB}M"),
        *("-object", f"{backend},id=ram,size={MIB}M,prealloc=on,merge=off"),
        *("-machine", "q35,memory-backend=ram,sata=off,i8042=off"),
        *("-kernel", str(kernel), "-initrd", str(archive)),
        *("-append", "console=ttyS0 quiet panic=-1", "-serial", "stdio", "-no-reboot"),
    ]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        timeout=LIMIT_SECONDS,
        check=True,
    )
    found = re.search(r"^ns (\S+)", done.stdout, re.MULTILINE)
    if not found:
        raise SystemExit(f"the guest said nothing of use: {done.stdout[-500:]}")
    return float(found[1])


def main() -> int:
    """Measure by turns and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory_bound")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    kernel = boot.kernel_image(SERIES)
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory(prefix="tuned-virt-bench-") as folder:
        archive = initramfs(Path(folder))
        with put_back(THP), put_back(POOL):
            POOL.write_text(str(int(POOL.read_text()) + MIB // 2))
            for _ in range(given.rounds):
                for name, (transparent, backend) in WAYS.items():
                    THP.write_text(transparent)
                    times[name].append(nanoseconds(backend, kernel, archive))
    plain = statistics.median(times["4 KiB"])
    for name, each in times.items():
        part = statistics.median(each) / plain
        print(f"{name:14} {spread(each)} ns a read, {part:.2f} of 4 KiB's")
    return 0


if __name__ == "__main__":
    sys.exit(main())
