# SPDX-License-Identifier: GPL-2.0-or-later
"""How what others publish is fetched, and what is said where it cannot be."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests import debian
from tests.published import sources
from tests.published.sources import Source

MINE = Source("mine", "my documents", r"tests/.*\.xml", "tests/*.xml")


def archive(folder: Path, members: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    file = folder / "mine_1.2.orig.tar.gz"
    with tarfile.open(file, "w:gz") as made:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return file


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sources, "FOLDER", tmp_path)
    return tmp_path


def test_the_first_suite_that_has_it_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def get(suite: str, package: str, into: Path) -> Path:
        asked.append(suite)
        if suite == "bookworm":
            raise debian.Unavailable("apt-get source:\nE: Failed to fetch it  404\nE: more")
        return archive(into, {"mine-1.2/tests/a.xml": b"<a/>", "mine-1.2/src/b.xml": b"<b/>"})

    monkeypatch.setattr(sources, "_archive", get)
    assert "not fetched" in MINE.missing
    assert MINE.fetch() == MINE.fetch() == "1.2 (trixie)"
    assert asked == ["bookworm", "trixie"]
    assert [path.name for path in MINE.files(MINE.domains)] == ["a.xml"]
    assert not MINE.missing
    assert sorted(path.name for path in MINE.folder.iterdir()) == ["tests", "version"]


def test_why_it_cannot_be_had_is_known_to_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(suite: str, package: str, into: Path) -> Path:
        raise debian.Unavailable("apt-get source:\nE: Failed to fetch it  404\nE: more")

    monkeypatch.setattr(sources, "_archive", get)
    with pytest.raises(debian.Unavailable):
        MINE.fetch()
    assert MINE.missing.startswith(f"{sources.ABSENT}my documents: Failed to fetch it  404 (nor")
    assert MINE.files(MINE.domains) == []


def test_nothing_is_written_outside(tmp_path: Path) -> None:
    names = ["top/../../a.xml", "a.xml", "./top/tests/b.xml"]
    file = archive(tmp_path / "archive", dict.fromkeys(names, b"<a/>"))
    with tarfile.open(file) as opened:
        sources.unpack(opened, tmp_path / "into", lambda path: path.endswith(".xml"))
    assert [path.name for path in (tmp_path / "into").rglob("*.xml")] == ["b.xml"]


@pytest.mark.large
def test_what_did_not_run_is_counted_aloud(tmp_path: Path) -> None:
    """Skipped, also in CI, and said however quiet pytest is."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-qq", "-r", "f", "-p", "no:cacheprovider", *NEEDY],
        env={**os.environ, "CI": "true", "TUNED_VIRT_CACHE": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    why = "not fetched (python -m tests.published)"
    assert [line for line in done.stdout.splitlines() if "not run" in line] == [
        f"not run: 3 tests of what others publish: libvirt's domains and capabilities: {why}",
        f"not run: 3 tests of what others publish: virt-manager's domains: {why}",
    ]


NEEDY = ["tests/unit/model/guest/test_reader_published.py"]
