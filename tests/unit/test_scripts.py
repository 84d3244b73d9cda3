# SPDX-License-Identifier: GPL-2.0-or-later
"""What the Makefile's targets say before they begin: what is missing, and who else runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fresh.__main__ import SAMPLE

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "id", "sed", "tr", "awk", "dirname", "mkdir", "date", "flock", "cat", "sleep")

DPKG_QUERY = """#!/bin/sh
shift 3
for name; do case " $INSTALLED " in *" $name "*) echo "installed $name" ;; esac; done
exit 1
"""
APT_GET = """#!/bin/sh
if [ -n "$NO_NETWORK" ]; then echo "$NO_NETWORK" >&2; exit 100; fi
echo "$*" >>"$CALLS"
"""


@pytest.fixture
def debian(tmp_path: Path) -> Path:
    """A PATH of a Debian on which only what INSTALLED names is installed."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    for name, text in (("dpkg-query", DPKG_QUERY), ("apt-get", APT_GET)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def run(
    debian: Path, script: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(ROOT / "scripts" / script), *arguments],
        env={"PATH": str(debian), "CALLS": str(debian / "calls"), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def packages(debian: Path, *tiers: str) -> list[str]:
    """What the tiers install where nothing is."""
    done = run(debian, "dependencies", *tiers)
    [line] = [line for line in (done.stdout + done.stderr).splitlines() if "install" in line]
    return re.split(r"install(?:ing:)? ?", line)[-1].split()


def test_packages_of_several_tiers_are_installed_at_once_and_each_once(debian: Path) -> None:
    names = packages(debian, "unit", "system", "packages")
    assert len(names) == len(set(names))
    assert {"tuned", "libvirt-daemon", "debhelper", "lintian"} <= set(names)


def test_what_is_there_asks_nobody(debian: Path) -> None:
    names = packages(debian, "unit")
    (debian / "calls").unlink(missing_ok=True)
    done = run(debian, "dependencies", "unit", INSTALLED=" ".join(names), NO_NETWORK="none")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (debian / "calls").exists()


def test_one_of_two_packages_is_enough(debian: Path) -> None:
    assert "hwloc-nox" in packages(debian, "unit")
    done = run(debian, "dependencies", "unit", INSTALLED="hwloc")
    assert "hwloc" not in done.stdout + done.stderr


def test_what_the_system_tier_builds_packages_with_is_the_system_tiers(debian: Path) -> None:
    assert {"debhelper", "dh-python", "go-md2man", "python3-all"} <= set(packages(debian, "system"))


@pytest.mark.parametrize("daemon", ["libvirtd", "virtqemud"])
def test_a_host_with_libvirt_gets_its_binding(debian: Path, daemon: str, tmp_path: Path) -> None:
    (tmp_path / "usr/sbin").mkdir(parents=True)
    without = run(debian, "dependencies", "product", SYSROOT=str(tmp_path))
    (tmp_path / "usr/sbin" / daemon).touch()
    there = run(debian, "dependencies", "product", SYSROOT=str(tmp_path))
    assert "python3-libvirt" not in without.stdout + without.stderr
    assert "python3-libvirt" in there.stdout + there.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may install")
def test_what_cannot_be_installed_is_named(debian: Path) -> None:
    done = run(debian, "dependencies", "build", NO_NETWORK="no such host")
    assert done.returncode == 2
    assert "no such host" in done.stderr
    assert "could not install: tuned" in done.stderr


def test_the_packages_of_missing_programs_are_named(debian: Path) -> None:
    done = run(debian, "needs", "rpm", "sh", "rpmbuild", "go-md2man", "python:nosuch", "python:os")
    assert done.returncode == 2
    assert done.stderr == (
        "make rpm needs rpmbuild, go-md2man, nosuch, not installed here:"
        " apt-get install rpm go-md2man python:nosuch\n"
    )


@pytest.mark.parametrize("target", ["man", "rpm", "deb"])
def test_a_target_names_what_it_lacks(debian: Path, target: str) -> None:
    make = shutil.which("make")
    assert make
    done = subprocess.run(
        [make, "--no-print-directory", target],
        cwd=ROOT,
        env={"PATH": str(debian)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "go-md2man, not installed here: apt-get install" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def running(debian: Path) -> Iterator[dict[str, str]]:
    """Environment of a machine on which a check runs."""
    lock = debian / "lock"
    with subprocess.Popen(
        [str(ROOT / "scripts/alone"), "make check", "sh", "-c", "echo begun; exec sleep 600"],
        env={"PATH": str(debian), "TUNED_VIRT_LOCK": str(lock)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield {"TUNED_VIRT_LOCK": str(lock)}
        process.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="without root nothing changes the kernel")
def test_a_second_one_is_told_of_the_first_and_not_started(
    debian: Path, running: dict[str, str]
) -> None:
    done = run(debian, "alone", "make up", "sh", "-c", "echo begun", **running)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"make up: not started: make check \(in \S+, by root, process \d+, since [\d :-]+\)"
        r" is running and changes the same kernel; wait for its end\n",
        done.stderr,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="without root nothing changes the kernel")
def test_its_own_steps_are_started_and_the_next_one_after_its_end(debian: Path) -> None:
    nested = (str(ROOT / "scripts/alone"), "inner", "sh", "-c", "echo begun")
    for _ in range(2):
        done = run(debian, "alone", "outer", *nested, TUNED_VIRT_LOCK=str(debian / "lock"))
        assert (done.returncode, done.stdout) == (0, "begun\n"), done.stderr


def test_a_fresh_machine_tries_a_system_test_of_each_plugin() -> None:
    plugins = {file.stem[len("plugin_") :] for file in ROOT.glob("tuned_plugins/plugin_*.py")}
    assert SAMPLE.keys() == plugins
    for test in SAMPLE.values():
        file, name = test.split("::")
        assert f"\ndef {name}(" in (ROOT / "tests/system" / file).read_text()
