# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from tuned_virt.core.system_root import OutsideRootError, SystemRoot


def test_files_are_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/x").write_text("text\n")
    system = SystemRoot(tmp_path)
    assert system.path("/etc/x") == str(tmp_path / "etc/x")
    assert system.text("/etc/x") == "text\n"
    assert system.text("/etc/y") == ""
    assert not system.is_commit


def test_a_link_out_of_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/x").symlink_to("/nowhere/x")
    with pytest.raises(OutsideRootError, match=r"etc/x leads out of .*root, to /nowhere/x"):
        SystemRoot(root).text("/etc/x")
    (root / "etc/y").symlink_to("../../rooted")
    with pytest.raises(OutsideRootError):
        SystemRoot(root).path("/etc/y")


@pytest.mark.parametrize("has_etc", [False, True])
def test_an_ostree_commit_has_its_etc_in_usr(has_etc: bool, tmp_path: Path) -> None:
    """A deployed one has both: usr/etc is what its /etc was made from."""
    (tmp_path / "usr/etc").mkdir(parents=True)
    (tmp_path / "usr/etc/x").write_text("commit\n")
    if has_etc:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/x").write_text("deployed\n")
    system = SystemRoot(tmp_path)
    assert system.is_commit is not has_etc
    assert system.text("/etc/x") == ("deployed\n" if has_etc else "commit\n")
    assert system.path("/usr/lib/x") == str(tmp_path / "usr/lib/x")
