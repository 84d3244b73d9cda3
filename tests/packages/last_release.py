# SPDX-License-Identifier: GPL-2.0-or-later
"""The last release, from this repository's history: what hosts are upgraded from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.packages.conftest import make, rpmbuild
from tests.sandbox import REPO

VERSION = "0.1.0"
COMMIT = "6fa536875b8c7bb7766a3766d69722b19dbcb106"

NAMES = tuple(f"tuned-virt-plus{suffix}" for suffix in ("", "-host", "-guest", "-recommend"))


def source(folder: Path) -> Path:
    """Its files in a new folder; skips the test in a clone without history."""
    git = ["git", "-c", f"safe.directory={REPO}", "-C", str(REPO)]
    known = subprocess.run([*git, "cat-file", "-e", f"{COMMIT}^{{commit}}"], check=False)
    if known.returncode:
        pytest.skip(f"version {VERSION} is not in this clone's history")
    folder.mkdir(parents=True, exist_ok=True)
    packed = subprocess.run([*git, "archive", COMMIT], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed, check=True)
    (folder / "build/venv").mkdir(parents=True)
    (folder / "build/venv/ready").touch()  # its own tests are not run
    return folder


def debs(folder: Path) -> Path:
    """A folder with its Debian packages, built in its source."""
    make(folder, "deb")
    return folder / "build/deb"


def rpms(folder: Path, output: Path, *flags: str) -> Path:
    """Its RPMs, built in its source."""
    return rpmbuild(folder, output, *flags)
