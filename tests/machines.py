# SPDX-License-Identifier: GPL-2.0-or-later
"""The captured machines of ../shared/data, read where they lie; absent, their tests are skipped."""

from __future__ import annotations

import functools
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.topology import Host, read

DATA = Path(__file__).parents[2] / "shared/data"
NAMES = sorted(path.stem for path in (DATA / "capabilities").glob("*.xml"))
DOMAINS = sorted((DATA / "domains").glob("*.xml"))

LSTOPO = {
    "HWLOC_THISSYSTEM": "0",
    "HWLOC_COMPONENTS": "linux,stop",
    "HWLOC_KEEP_NVIDIA_GPU_NUMA_NODES": "1",
    "HWLOC_HIDE_ERRORS": "2",
}
"""lstopo reads the tree alone, and GPUs' memory nodes as the kernel shows them."""


def needed() -> None:
    """Skip a test where the data is absent; in CI it fails."""
    if not NAMES:
        reason = f"{DATA} is not here"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)


@functools.cache
def by_capabilities(name: str) -> Host:
    """A machine by its capabilities XML."""
    return Host.from_xml((DATA / f"capabilities/{name}.xml").read_text())


@functools.cache
def by_sysfs(name: str) -> Host:
    """A machine by its /sys and /proc."""
    return read(KernelFS(tree(name)))


@functools.lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tuned-virt-machines-")


@functools.cache
def tree(name: str) -> Path:
    """A machine's /sys and /proc, extracted once a session."""
    folder = Path(_folder().name) / name
    folder.mkdir()
    with tarfile.open(DATA / f"topologies/{name}.tar.bz2") as archive:
        archive.extractall(folder, members=_needed(archive))
    [root] = folder.iterdir()
    return root


def _needed(archive: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """All but the thousands of files that neither lstopo nor we read."""
    unread = ("/sys/class/", "/cpufreq/", "/cpuidle/", "/sys/firmware/", "/power/", "/microcode/")
    return [
        member
        for member in archive
        if not any(part in f"/{member.name}/" for part in unread)
        and "/memory" not in member.name.split("/node/")[-1].partition("/")[1:][1]
    ]


def lstopo(name: str, *options: str) -> str:
    """What lstopo says of a machine, as XML."""
    done = subprocess.run(
        ["lstopo", "--no-io", "--of", "xml", *options],
        env={**os.environ, **LSTOPO, "HWLOC_FSROOT": str(tree(name))},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
