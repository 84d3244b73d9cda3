# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD's service in an ostree commit, whose links systemctl does not make where they belong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tuned_virt.cli.boot_service import BootService
from tuned_virt.cli.common import CouldNot
from tuned_virt.core.system_root import SystemRoot

UNIT = "[Unit]\nDescription=x\n[Install]\nWantedBy=multi-user.target other.target\n"


@pytest.fixture
def commit(tmp_path: Path) -> Path:
    (tmp_path / "usr/etc").mkdir(parents=True)
    folder = tmp_path / "usr/lib/systemd/system"
    folder.mkdir(parents=True)
    (folder / "tuned.service").write_text(UNIT)
    return tmp_path


def test_links_are_made_in_usr_etc(commit: Path) -> None:
    service = BootService(SystemRoot(commit))
    service.check()
    assert service.enable()
    for target in ("multi-user.target", "other.target"):
        link = commit / f"usr/etc/systemd/system/{target}.wants/tuned.service"
        assert os.readlink(link) == "/usr/lib/systemd/system/tuned.service"
    assert not service.enable()
    assert not (commit / "etc").exists()


def test_a_masked_service_is_refused(commit: Path) -> None:
    mask = commit / "usr/etc/systemd/system/tuned.service"
    mask.parent.mkdir(parents=True)
    mask.symlink_to("/dev/null")
    with pytest.raises(CouldNot, match="masked"):
        BootService(SystemRoot(commit)).check()


def test_no_service(commit: Path) -> None:
    (commit / "usr/lib/systemd/system/tuned.service").unlink()
    with pytest.raises(CouldNot, match=r"there is no tuned\.service in"):
        BootService(SystemRoot(commit)).check()
