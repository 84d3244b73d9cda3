# SPDX-License-Identifier: GPL-2.0-or-later
"""The packages' tier: builds them once, and installs them into systems in folders, as root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packages.roots import Root
from tests.sandbox import REPO

NEXT = "99.0"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        pytest.exit("the packages' tier needs root: sudo make check-packages", returncode=2)


def make(folder: Path, *arguments: str) -> str:
    """Run make in a checkout; its output is shown when it fails."""
    done = subprocess.run(
        ["make", "-C", str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def copy_of_the_source(target: Path) -> Path:
    """The files of this checkout that git knows, without its history."""
    listed = subprocess.run(
        ["git", "-C", str(REPO), "ls-files", "-z"], capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (REPO / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, target / name)
    return target


@dataclass(frozen=True)
class Built:
    """Folders with the packages of this version and of the next."""

    now: Path
    next: Path


def rpmbuild(folder: Path, output: Path, *flags: str) -> Path:
    """Build RPMs without their unit tests, which `make rpm` runs."""
    make(folder, "rpm", "ON_DEBIAN=", f"RPMFLAGS=--nodeps --nocheck {' '.join(flags)}")
    shutil.copytree(folder / "build/rpm/RPMS/noarch", output)
    return output


@pytest.fixture(scope="session")
def next_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout as its next version: another number, and one more line in a variables file."""
    folder = copy_of_the_source(tmp_path_factory.mktemp("next"))
    init = folder / "tuned_virt/__init__.py"
    text = init.read_text()
    init.write_text(text.replace(text.split('__version__ = "')[1].split('"')[0], NEXT))
    for file in folder.glob("profiles/*-variables.conf"):
        file.write_text(f"{file.read_text()}# new in {NEXT}\n")
    return folder


@pytest.fixture(scope="session")
def make_rpm() -> str:
    """What `make rpm` printed; the unit tests have run in it."""
    shutil.rmtree(REPO / "build/rpm", ignore_errors=True)
    return make(REPO, "rpm")


@pytest.fixture(scope="session")
def rpms(next_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Both versions, for a TuneD that looks for profiles where that of RHEL 9 does."""
    output = tmp_path_factory.mktemp("rpms")
    source = copy_of_the_source(tmp_path_factory.mktemp("now"))
    old = ("--define", "'rhel 9'")
    return Built(
        rpmbuild(source, output / "now", *old), rpmbuild(next_source, output / "next", *old)
    )


@pytest.fixture(scope="session")
def debs(next_source: Path) -> Built:
    """Debian packages as `make deb` builds them, and the next version's."""
    make(REPO, "deb")
    make(next_source, "deb")
    return Built(REPO / "build/deb", next_source / "build/deb")


@pytest.fixture
def root() -> Iterator[Root]:
    """A system to install into."""
    with Root() as opened:
        yield opened
