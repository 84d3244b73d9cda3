# SPDX-License-Identifier: GPL-2.0-or-later
"""The repository of `make repo`: dnf and apt install from it, and refuse what nobody signed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import release, repo
from tests.packages.conftest import Built, make
from tests.packages.roots import Root
from tests.sandbox import REPO

INSIDE = "/srv/repo"
OWN = "/etc/apt/own"
NAME = "tuned-virt-plus"
APT = ("apt-get", "--quiet", "-o", "Dir::Etc::SourceList=/dev/null")


@pytest.fixture(scope="module")
def key() -> Iterator[str]:
    """A key without a passphrase; gpg's sockets want a short path."""
    with tempfile.TemporaryDirectory(prefix="k") as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNUPGHOME", home)
        gpg = ("gpg", "--batch", "--quiet")
        made = ("--passphrase", "", "--quick-generate-key", "Tests <t@localhost>", "rsa2048")
        subprocess.run([*gpg, *made], check=True)
        listed = subprocess.run(
            [*gpg, "--list-keys", "--with-colons"], check=True, capture_output=True, text=True
        )
        [found] = [line for line in listed.stdout.splitlines() if line.startswith("fpr:")]
        yield found.split(":")[9]
        subprocess.run(["gpgconf", "--kill", "all"], check=True)


@pytest.fixture(scope="module")
def served(key: str, rpms: Built, debs: Built) -> Path:
    """The repository with this version's packages, signed."""
    packages = [*rpms.now.glob("*.rpm"), *debs.now.glob("*.deb")]
    script = [str(REPO / "scripts/repo.py"), "--key", key, f"file://{INSIDE}"]
    subprocess.run(["/usr/bin/python3", *script, *map(str, packages)], check=True)
    return repo.TARGET


def put(root: Root, served: Path) -> None:
    shutil.copytree(served, root.path / INSIDE.lstrip("/"))
    for source, folder in (
        (served / f"deb/{NAME}.sources", OWN),
        (served / repo.KEY_FILE, repo.KEYRINGS),
    ):
        root.put(source, folder)


def apt(root: Root, *arguments: str, status: int = 0) -> str:
    return root.run(*APT, "-o", f"Dir::Etc::SourceParts={OWN}", *arguments, status=status)


def test_apt_installs_from_it(root: Root, served: Path) -> None:
    put(root, served)
    apt(root, "update")
    apt(root, "install", "--yes", "--no-install-recommends", f"{NAME}-host")
    assert root.run("tuned-virt", "--version") == f"{NAME} {release.version()}\n"


def test_apt_refuses_a_changed_index(root: Root, served: Path) -> None:
    put(root, served)
    release_file = root.path / f"{INSIDE}/deb/dists/{repo.SUITE}/InRelease".lstrip("/")
    release_file.write_text(release_file.read_text().replace("Suite: stable", "Suite: other"))
    said = apt(root, "update", "--error-on=any", status=100)
    assert "BADSIG" in said or "invalid" in said


def dnf(root: Root, *arguments: str) -> subprocess.CompletedProcess[str]:
    distribution = f"{root.inside}{INSIDE}/rpm/any"
    base = ("dnf", "--assumeyes", "--quiet", f"--installroot={root.inside}", "--releasever=1")
    setopt = {
        "reposdir": distribution,
        f"{NAME}.baseurl": f"file://{distribution}",
        f"{NAME}.gpgkey": f"file://{root.inside}{INSIDE}/{repo.KEY_FILE}",
        "cachedir": "/var/cache/dnf-test",
        f"{NAME}.skip_if_unavailable": "0",
    }
    options = [f"--setopt={name}={value}" for name, value in setopt.items()]
    return root.outside([*base, *options, *arguments])


def test_dnf_takes_signed_metadata_and_no_other(root: Root, served: Path) -> None:
    put(root, served)
    listed = dnf(root, "repoquery", "--qf", "%{name}")
    assert f"{NAME}-host" in listed.stdout.split(), listed.stderr
    metadata = root.path / f"{INSIDE}/rpm/any/repodata/repomd.xml".lstrip("/")
    metadata.write_text(metadata.read_text().replace("<revision>", "<revision>1"))
    dnf(root, "clean", "all")
    refused = dnf(root, "repoquery", "--qf", "%{name}")
    assert refused.returncode != 0
    assert "signature" in refused.stderr.lower()


def test_each_rpm_is_signed(served: Path, tmp_path: Path) -> None:
    keys = ("rpmkeys", "--dbpath", str(tmp_path))
    subprocess.run([*keys, "--import", str(served / repo.KEY_FILE)], check=True)
    packages = sorted(map(str, served.glob("rpm/any/*.rpm")))
    checked = subprocess.run(
        [*keys, "--checksig", *packages], capture_output=True, text=True, check=True
    )
    assert [line.partition(": ")[2] for line in checked.stdout.splitlines()] == [
        "digests signatures OK"
    ] * len(packages)


def test_copr_gets_a_source_rpm(tmp_path: Path) -> None:
    make(REPO, "-f", ".copr/Makefile", "srpm", f"outdir={tmp_path}")
    [found] = tmp_path.iterdir()
    assert found.name.startswith(f"{NAME}-{release.version()}-1")
    assert found.name.endswith(".src.rpm")


def test_without_packages_it_says_what_to_do(tmp_path: Path) -> None:
    script = tmp_path / "scripts/repo.py"
    script.parent.mkdir()
    shutil.copy(REPO / "scripts/repo.py", script)
    done = subprocess.run(
        ["/usr/bin/python3", str(script), "file:///x"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "make repo: no packages: make rpm deb\n")


def test_the_bill_of_materials_names_every_requirement() -> None:
    make(REPO, "sbom")
    first = (REPO / f"build/dist/{NAME}-{release.version()}.cdx.json").read_text()
    for name in ("tuned", "python3-libvirt", "python3-defusedxml"):
        assert f'"bom-ref": "{name}"' in first
    make(REPO, "sbom")
    assert (REPO / f"build/dist/{NAME}-{release.version()}.cdx.json").read_text() == first
