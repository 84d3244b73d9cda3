# SPDX-License-Identifier: GPL-2.0-or-later
"""The source archive, and the version that is in one place."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

from scripts import release
from tests.packages.conftest import copy_of_the_source
from tests.sandbox import REPO

ARCHIVE = f"build/dist/tuned-virt-plus-{release.version()}.tar.gz"


def dist(folder: Path, *setting: str) -> bytes:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(release.epoch())}
    script = f"{' '.join(setting)} make dist"
    subprocess.run(["sh", "-ec", script], cwd=folder, env=environment, check=True)
    return (folder / ARCHIVE).read_bytes()


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    here = dist(REPO)
    copy = copy_of_the_source(tmp_path)
    os.utime(copy / "setup.py", (0, 0))
    assert dist(copy, "umask 077;", "export TZ=Asia/Tokyo LC_ALL=C;") == here
    assert dist(REPO) == here


def test_the_archive_has_what_git_knows_and_the_version(tmp_path: Path) -> None:
    dist(REPO)
    with tarfile.open(REPO / ARCHIVE) as archive:
        archive.extractall(tmp_path)
    top = tmp_path / f"tuned-virt-plus-{release.version()}"
    found = {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()}
    assert found == {*release.files(), "debian/changelog"}
    spec = (top / "rpm/tuned-virt-plus.spec").read_text()
    assert f"\nVersion:        {release.version()}\n" in spec
    assert f" - {release.version()}-1\n" in spec
    assert f"({release.version()})" in (top / "debian/changelog").read_text()


def test_the_version_is_in_one_place() -> None:
    texts = {
        name: (REPO / name).read_text(errors="replace")
        for name in release.files()
        if name.split("/")[0]
        in ("Makefile", "debian", "pyproject.toml", "rpm", "scripts", "setup.py")
    }
    assert not [name for name, text in texts.items() if release.version() in text]
