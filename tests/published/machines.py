# SPDX-License-Identifier: GPL-2.0-or-later
"""hwloc's captured machines: /sys and /proc of each, what lstopo says of it, and both read."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.published import capabilities
from tests.published.sources import ABSENT, HWLOC, unpack
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.topology import Host, read

FOLDER = HWLOC.folder / "machines"
ENDING = ".tar.bz2"

LSTOPO = {
    "HWLOC_THISSYSTEM": "0",
    "HWLOC_COMPONENTS": "linux,stop",
    "HWLOC_KEEP_NVIDIA_GPU_NUMA_NODES": "1",
    "HWLOC_HIDE_ERRORS": "2",
}
"""lstopo reads the tree alone, and GPUs' memory nodes as the kernel shows them."""

READ = re.compile(
    r"(fsroot/)?(proc|dev/cpuset|cgroup|run|var"
    r"|sys/(devices/system/(cpu|node)|devices/cpu_(atom|core)|devices/.*/numa_node|block"
    r"|bus/pci/devices|kernel/mm/hugepages|fs/cgroup))(/.*)?"
)
"""What lstopo or we read; a captured machine has thousands of files more."""

UNREAD = re.compile(
    r".*/(cpufreq|cpuidle|power|microcode|thermal_throttle|memory\d+|hotplug|subsystem|uevent"
    r"|number_of_sets|ways_of_associativity|coherency_line_size|physical_line_partition"
    r"|\w+_policy|crash_notes\w*|cache_disable_\d)(/.*)?"
)


def prepare() -> str:
    """Unpack the machines and ask lstopo, once; how many there are."""
    archives = HWLOC.files(f"tests/hwloc/**/*{ENDING}")
    names = [_prepared(archive) for archive in archives]
    if shutil.which("lstopo") is None:
        return f"{len(names)} captured machines, and no lstopo (hwloc-nox) to describe them"
    told = sum(bool(_told(name)) for name in names)
    return f"{len(names)} captured machines, {told} of them as lstopo describes them"


def _prepared(archive: Path) -> str:
    name = archive.name.removesuffix(ENDING)
    new = FOLDER / f"{name}.new"
    if not (FOLDER / name).exists():
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        with tarfile.open(archive) as members:
            unpack(members, new, lambda path: READ.fullmatch(path) and not UNREAD.fullmatch(path))
        new.rename(FOLDER / name)
    return name


def _told(name: str) -> str:
    """What lstopo says of a machine, as XML; nothing where it refuses it."""
    file = FOLDER / f"{name}.xml"
    if not file.exists():
        done = subprocess.run(
            ["lstopo", "--no-io", "--disallowed", "--of", "xml"],
            env={**os.environ, **LSTOPO, "HWLOC_FSROOT": str(tree(name))},
            capture_output=True,
            text=True,
            check=False,
        )
        file.write_text("" if done.returncode else done.stdout)
    return file.read_text()


def tree(name: str) -> Path:
    """The folder with a machine's /sys and /proc."""
    inner = FOLDER / name / "fsroot"
    return inner if inner.exists() else FOLDER / name


def names() -> list[str]:
    """All captured machines; none where they are not here."""
    folders = (path.name for path in FOLDER.glob("*") if path.is_dir())
    return sorted(name for name in folders if not name.endswith(".new"))


def told() -> list[str]:
    """Those that lstopo describes."""
    return [name for name in names() if (FOLDER / f"{name}.xml").exists() and lstopo(name)]


def missing() -> str:
    """Why some are not here."""
    if HWLOC.missing or told():
        return HWLOC.missing
    return f"{ABSENT}{HWLOC.holds}: lstopo (hwloc-nox) was not there"


def each(found: Sequence[str]) -> pytest.MarkDecorator:
    """A test of each of them; without any, one that is skipped."""
    absent = pytest.param("", marks=pytest.mark.skip(reason=missing()))
    return pytest.mark.parametrize("name", found or [absent])


def lstopo(name: str) -> str:
    """What lstopo says of a machine, as XML."""
    return (FOLDER / f"{name}.xml").read_text()


@functools.cache
def by_capabilities(name: str) -> Host:
    """A machine by capabilities that are made of what lstopo says."""
    return Host.from_xml(capabilities.of_lstopo(lstopo(name)))


@functools.cache
def by_sysfs(name: str) -> Host:
    """A machine by its /sys and /proc. Raises HostError."""
    return read(KernelFS(tree(name)))
