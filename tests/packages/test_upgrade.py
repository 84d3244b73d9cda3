# SPDX-License-Identifier: GPL-2.0-or-later
"""From the last release to this one: settings, the enabled profile and edits stay."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from scripts import release
from tests.packages import last_release
from tests.packages.conftest import Built
from tests.packages.roots import Root
from tests.packages.test_deb import apt, put

HOST = "/etc/tuned/virtual-host-plus-variables.conf"


@pytest.fixture(scope="module")
def last(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last release's source."""
    return last_release.source(tmp_path_factory.mktemp("last"))


def every_setting(last: Path, profile: str) -> str:
    """The settings file as it was delivered, with each setting in force at its default."""
    text = (last / f"profiles/{profile}-variables.conf").read_text()
    return re.sub(r"^#(\w+=)", r"\1", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("profile", "count"), [("virtual-host-plus", 75), ("virtual-guest-plus", 24)]
)
def test_each_setting_is_still_taken(
    profile: str, count: int, last: Path, root: Root, debs: Built
) -> None:
    apt(
        root, "install", *put(root, debs.now, "tuned-virt-plus", f"tuned-virt-plus-{profile[8:-5]}")
    )
    file = root.path / f"etc/tuned/{profile}-variables.conf"
    file.write_text(every_setting(last, profile))
    told = root.run("tuned-virt", "check-settings")
    assert f"right for {profile} ({count} set)" in told


def test_debian_packages(last: Path, root: Root, debs: Built) -> None:
    before = root.files()
    apt(root, "install", *put(root, last_release.debs(last), *last_release.NAMES))
    assert root.run("tuned-virt", "--version") == f"tuned-virt-plus {last_release.VERSION}\n"
    root.run("tuned-virt", "enable", "virtual-host-plus")
    edited = root.path / HOST.lstrip("/")
    edited.write_text("ksm_mode=off\nvm_policy=dedicated\n")
    keep = ("-o", "Dpkg::Options::=--force-confold")
    apt(root, *keep, "install", *put(root, debs.now, *last_release.NAMES))
    assert root.run("tuned-virt", "--version") == f"tuned-virt-plus {release.version()}\n"
    assert root.text("/etc/tuned/active_profile") == "virtual-host-plus\n"
    assert edited.read_text() == "ksm_mode=off\nvm_policy=dedicated\n"
    assert "right for virtual-host-plus (2 set)" in root.run("tuned-virt", "check-settings")
    apt(root, "remove", "tuned-virt-plus")
    assert root.text("/etc/tuned/active_profile") == ""
    root.run("dpkg", "--purge", *last_release.NAMES)
    for folder in {debs.now.name, "deb"}:
        shutil.rmtree(root.path / folder, ignore_errors=True)
    assert root.files().keys() - before.keys() == set(), "nothing of either version is left"


def test_rpms(last: Path, root: Root, tmp_path: Path, rpms: Built) -> None:
    """By rpm: what dnf makes of dependencies is in test_rpm.py."""
    built = last_release.rpms(last, tmp_path / "last", "--define", "'rhel 9'")
    before = root.files()

    def of(folder: Path, version: str) -> list[str]:
        files = (folder / f"{name}-{version}-1.noarch.rpm" for name in last_release.NAMES)
        return [
            str(next(folder.glob(f"{file.stem.rpartition('.noarch')[0]}*.rpm"))) for file in files
        ]

    def rpm(*arguments: str) -> None:
        done = root.outside(["rpm", "--root", root.inside, "--nodeps", *arguments])
        assert done.returncode == 0, done.stdout + done.stderr

    rpm("-i", *of(built, last_release.VERSION))
    root.run("tuned-virt", "enable", "virtual-host-plus")
    edited = root.path / HOST.lstrip("/")
    edited.write_text("ksm_mode=off\n")
    rpm("-U", *of(rpms.now, release.version()))
    assert root.run("tuned-virt", "--version") == f"tuned-virt-plus {release.version()}\n"
    assert root.text("/etc/tuned/active_profile") == "virtual-host-plus\n"
    assert edited.read_text() == "ksm_mode=off\n"
    rpm("-e", *last_release.NAMES)
    assert root.text("/etc/tuned/active_profile") == ""
    left = root.files().keys() - before.keys()
    assert {path for path in left if not path.startswith("/root/.rpmdb")} <= {
        f"{HOST}.rpmsave",
        f"{HOST}.rpmnew",
    }
