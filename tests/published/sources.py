# SPDX-License-Identifier: GPL-2.0-or-later
"""The source packages, what of each is kept, and where that is."""

from __future__ import annotations

import functools
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests import debian

CACHE = Path(os.environ.get("TUNED_VIRT_CACHE", Path(__file__).resolve().parents[2] / "build"))
FOLDER = CACHE / "published"

SUITES = ("bookworm", "trixie", "sid")
"""Asked in turn, so that every machine tests the same; not every mirror has the sources of all."""

NOT_FETCHED = "not fetched (python -m tests.published)"

ABSENT = "of what others publish: "
"""Begins the reason of a test that is skipped because something is not here."""


@dataclass(frozen=True)
class Source:
    """A source package: what its tests have for ours, and the paths of these files in it.

    `domains` is the pattern of those that are domains, or that a reader of domains must refuse.
    """

    name: str
    holds: str
    paths: str
    domains: str = ""

    @property
    def folder(self) -> Path:
        """Where these files are, if it was fetched; `version` in it says which."""
        return FOLDER / self.name

    def files(self, pattern: str) -> list[Path]:
        """Those that match, by name; none where it was not fetched."""
        return sorted(path for path in self.folder.glob(pattern) if path.is_file())

    @property
    def missing(self) -> str:
        """Why it is not here; empty where it is."""
        if (self.folder / "version").exists():
            return ""
        noted = self._note.read_text() if self._note.exists() else NOT_FETCHED
        return f"{ABSENT}{self.holds}: {noted}"

    @property
    def _note(self) -> Path:
        return FOLDER / f"{self.name}.unavailable"

    def fetch(self) -> str:
        """Fetch it unless it is there; its version. Raises debian.Unavailable, and notes why."""
        version = self.folder / "version"
        if not version.exists():
            try:
                self._fetch(FOLDER / f"{self.name}.new")
            except debian.Unavailable as error:
                self._note.write_text(str(error))
                raise
            self._note.unlink(missing_ok=True)
        return version.read_text()

    def _fetch(self, new: Path) -> None:
        reasons = []
        for suite in SUITES:
            shutil.rmtree(new, ignore_errors=True)
            try:
                archive = _archive(suite, self.name, new)
            except debian.Unavailable as error:
                reasons.append(_brief(error))
                continue
            with tarfile.open(archive) as members:
                unpack(members, new, re.compile(self.paths).fullmatch)
            archive.unlink()
            number = archive.name.rpartition(".orig.")[0].rpartition("_")[2]
            (new / "version").write_text(f"{number} ({suite})")
            new.rename(self.folder)
            return
        others = ", ".join(SUITES[1:])
        raise debian.Unavailable(f"{reasons[0]} (nor are the sources of {others} there)")


HWLOC = Source(
    "hwloc", "hwloc's captured machines", r"tests/hwloc/(linux|x86\+linux)/(.*/)?[^/]*\.tar\.bz2"
)
LIBVIRT = Source(
    "libvirt",
    "libvirt's domains and capabilities",
    r"tests/(qemuxml2argvdata|qemuxmlconfdata|genericxml2xmlindata)/[^/]*\.xml"
    r"|tests/vircaps2xmldata/.*|tests/virhostcpudata/linux-with-\w+/.*",
    "tests/[gq]*/*.xml",
)
VIRT_MANAGER = Source(
    "virt-manager", "virt-manager's domains", r"tests/data/.*\.xml", "tests/data/**/*.xml"
)
SOURCES = (HWLOC, LIBVIRT, VIRT_MANAGER)


@functools.cache
def _suite(name: str) -> debian.Suite | debian.Unavailable:
    """A suite's sources, with lists that this process has fetched, or why they cannot be had."""
    suite = debian.Suite(name, CACHE, "deb-src")
    try:
        suite.update()
    except debian.Unavailable as error:
        return error
    return suite


def _archive(suite: str, package: str, into: Path) -> Path:
    found = _suite(suite)
    if isinstance(found, debian.Unavailable):
        raise found
    return found.source(package, into)


def _brief(error: debian.Unavailable) -> str:
    """What failed first, in one line: apt's errors have many."""
    failed = re.search(r"Failed to fetch.*", str(error))
    return failed[0] if failed else str(error).partition("\n")[0]


def unpack(archive: tarfile.TarFile, into: Path, wanted: Callable[[str], object]) -> None:
    """Its members whose path below the top folder `wanted` is true of: files, links and folders."""
    for member in archive:
        path = member.name.removeprefix("./").partition("/")[2]
        if not path or ".." in path.split("/") or not wanted(path):
            continue
        target = into / path
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if member.issym():
            target.symlink_to(member.linkname)
        elif (content := archive.extractfile(member)) is not None:
            target.write_bytes(content.read())
