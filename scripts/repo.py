# SPDX-License-Identifier: GPL-2.0-or-later
"""A package repository in build/repo, for dnf and apt, to be served by any web server.

usage: repo.py [--key FINGERPRINT] URL [PACKAGE…]

Without packages those of `make rpm` and `make deb`. An RPM goes to rpm/DISTRIBUTION by the end of
its release (el9, fc44; `any` where it names none), a Debian package to deb/. With a key of gpg's
RPMs, repomd.xml and Release are signed, and clients are told to check that; without one they are
told not to. Exit status: 0 done, 2 something is missing.
"""

from __future__ import annotations

import argparse
import gzip
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
NAME = "tuned-virt-plus"
TARGET = SOURCE / "build/repo"
KEY_FILE = f"{NAME}.asc"
SUITE = "stable"

MADE = ("build/rpm/RPMS/noarch/*.rpm", "build/deb/*.deb")
"""Where `make rpm` and `make deb` leave their packages."""

DNF = """[{name}]
name=TuneD profiles and plugins for KVM hosts and guests
baseurl={url}/rpm/{distribution}
enabled=1
gpgcheck={signed}
repo_gpgcheck={signed}
"""

APT = """Types: deb
URIs: {url}/deb
Suites: {suite}
Components: main
Architectures: all
"""

KEYRINGS = "/etc/apt/keyrings"
"""Where apt's manual has keys that only one source trusts (sources.list(5), Signed-By)."""


class Missing(Exception):
    """A program failed or a package is not there; the text says which."""


def run(*command: str, folder: Path | None = None) -> bytes:
    """What a program prints. Raises Missing."""
    try:
        return subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout
    except FileNotFoundError as error:
        raise Missing(f"{command[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise Missing(f"{' '.join(command)}: {said}") from error


def distribution(package: Path) -> str:
    """The distribution that an RPM is for, by its release: `1.el9` is for el9."""
    found = re.search(r"-[^-]+?\.([a-z]+[0-9][a-z0-9_.]*)\.noarch\.rpm$", package.name)
    return found[1] if found else "any"


def rpms(packages: Iterable[Path], url: str, key: str) -> None:
    """rpm/DISTRIBUTION with its packages, metadata, and the file for /etc/yum.repos.d."""
    folders: dict[str, Path] = {}
    signing = ("--define", f"_gpg_name {key}", "--define", f"__gpg {shutil.which('gpg')}")
    for package in packages:
        folder = folders.setdefault(distribution(package), TARGET / "rpm" / distribution(package))
        folder.mkdir(parents=True, exist_ok=True)
        copy = Path(shutil.copy(package, folder))
        if key:
            run("rpmsign", *signing, "--addsign", str(copy))
    for name, folder in folders.items():
        run("createrepo_c", "--quiet", str(folder))
        if key:
            sign(key, folder / "repodata/repomd.xml", "--detach-sign", ".asc")
        text = DNF.format(name=NAME, url=url, distribution=name, signed=int(bool(key)))
        text += f"gpgkey={url}/{KEY_FILE}\n" if key else ""
        (folder / f"{NAME}.repo").write_text(text)


def debs(packages: Iterable[Path], url: str, key: str) -> None:
    """deb/ with pool and dists, and the file for /etc/apt/sources.list.d."""
    top, pool = TARGET / "deb", TARGET / "deb/pool/main"
    index = top / "dists" / SUITE / "main/binary-all"
    for folder in (pool, index):
        folder.mkdir(parents=True)
    for package in packages:
        shutil.copy(package, pool)
    listed = run("apt-ftparchive", "packages", "pool", folder=top)
    (index / "Packages").write_bytes(listed)
    (index / "Packages.gz").write_bytes(gzip.compress(listed, mtime=0))
    fields = {"Origin": NAME, "Suite": SUITE, "Architectures": "all", "Components": "main"}
    options = [f"--option=APT::FTPArchive::Release::{field}={fields[field]}" for field in fields]
    release = index.parents[1] / "Release"
    release.write_bytes(run("apt-ftparchive", *options, "release", str(release.parent)))
    text = APT.format(url=url, suite=SUITE)
    if key:
        sign(key, release, "--detach-sign", ".gpg")
        sign(key, release, "--clear-sign", "", release.with_name("InRelease"))
        text += f"Signed-By: {KEYRINGS}/{KEY_FILE}\n"
    else:
        text += "Trusted: yes\n"
    (top / f"{NAME}.sources").write_text(text)


def sign(key: str, file: Path, how: str, suffix: str, output: Path | None = None) -> None:
    """A signature beside a file, or the file with its signature."""
    target = output or file.with_name(file.name + suffix)
    run(
        *("gpg", "--batch", "--yes", "--armor", "--local-user", key),
        *("--output", str(target), how, str(file)),
    )


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="repo.py")
    parser.add_argument("url")
    parser.add_argument("--key", default="", metavar="FINGERPRINT")
    parser.add_argument("packages", nargs="*", type=Path, metavar="PACKAGE")
    told = parser.parse_args()
    packages = told.packages or sorted(one for made in MADE for one in SOURCE.glob(made))
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    url = told.url.rstrip("/")
    try:
        if not packages:
            raise Missing("no packages: make rpm deb")
        rpms([one for one in packages if one.suffix == ".rpm"], url, told.key)
        if found := [one for one in packages if one.suffix == ".deb"]:
            debs(found, url, told.key)
        if told.key:
            (TARGET / KEY_FILE).write_bytes(run("gpg", "--armor", "--export", told.key))
    except Missing as error:
        print(f"make repo: {error}", file=sys.stderr)
        return 2
    print(f"{len(packages)} packages in {TARGET.relative_to(SOURCE)}, to be served as {url}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
