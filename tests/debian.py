# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's packages, sources and small systems, beside the machine's own apt and only unpacked.

Only mirror, proxies and keyring are taken from the machine's configuration; lists, cache and state
are private, so the machine's sources never learn of the other suites.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

CACHE = Path(os.environ.get("TUNED_VIRT_CACHE") or Path(__file__).resolve().parents[1] / "build")
"""Where everything that is downloaded is kept."""

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class Unavailable(Exception):
    """A package cannot be had here, with the reason."""


def mirror(etc_apt: Path = Path("/etc/apt")) -> str:
    """URI of the Debian mirror this machine installs from.

    Raises Unavailable where no apt source names one (not a Debian machine).
    """
    files = [*sorted(etc_apt.glob("sources.list.d/*.sources")), etc_apt / "sources.list"]
    for file in files:
        if not file.exists():
            continue
        found = re.search(
            r"^(?:URIs:|deb\s+(?:\[[^]]*\]\s+)?)\s*(\S+/debian/?)(?=\s|$)",
            file.read_text(),
            re.MULTILINE,
        )
        if found:
            return found.group(1)
    raise Unavailable(f"no Debian mirror in the apt sources under {etc_apt}")


def network_options() -> Iterator[str]:
    """How apt reaches its mirror on this machine, and how old that may be: its options on it."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    for line in dump.stdout.splitlines():
        if re.match(
            r'Acquire::\S*(proxy|cainfo|verify-peer|check-valid-until) "[^"]', line, re.IGNORECASE
        ):
            yield line.rstrip(";")


def bootstrap(suite: str, folder: Path, include: Sequence[str], exclude: Sequence[str]) -> Path:
    """A system of apt and some packages in a folder, made once; `exclude` are paths left out.

    Raises Unavailable.
    """
    if folder.exists():
        return folder
    if not shutil.which("mmdebstrap"):
        raise Unavailable("mmdebstrap is not installed: apt-get install mmdebstrap")
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = folder.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    options = ("APT::Install-Recommends false", *network_options())
    command = [
        *("mmdebstrap", "--mode=root", "--variant=apt", f"--include={','.join(include)}"),
        *(f"--aptopt={option}" for option in options),
        *(f"--dpkgopt=path-exclude={path}" for path in exclude),
        *("--dpkgopt=force-unsafe-io", "--quiet", suite, str(new), mirror()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"mmdebstrap {suite}: {done.stderr.strip()}")
    new.rename(folder)
    return folder


class Suite:
    """One Debian suite as seen through private apt directories under `cache`.

    `kind` is apt's: "deb" for packages, "deb-src" for sources.
    """

    def __init__(self, name: str, cache: Path, kind: str = "deb") -> None:
        self.name = name
        self.kind = kind
        self.dir = cache.resolve() / ("apt" if kind == "deb" else f"apt-{kind}") / name

    def _apt(self, *arguments: str, cwd: Path | None = None) -> str:
        options = {
            "Dir::Etc::sourcelist": self.dir / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": self.dir / "lists",
            "Dir::Cache": self.dir / "cache",
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            "Acquire::Retries": "1",
        }
        command = [arguments[0], *(f"-o{key}={value}" for key, value in options.items())]
        try:
            done = subprocess.run(
                [*command, *arguments[1:]], cwd=cwd, text=True, capture_output=True, check=False
            )
        except FileNotFoundError as error:
            raise Unavailable(f"{arguments[0]} is not installed: this is no Debian") from error
        if done.returncode:
            raise Unavailable(f"{' '.join(arguments)} ({self.name}): {done.stderr.strip()}")
        return done.stdout

    def update(self) -> None:
        """Fetch the suite's lists. Raises Unavailable."""
        for sub in ("lists/partial", "cache/archives/partial"):
            (self.dir / sub).mkdir(parents=True, exist_ok=True)
        (self.dir / "sources.list").write_text(
            f"{self.kind} [signed-by={KEYRING}] {mirror()} {self.name} main\n"
        )
        self._apt("apt-get", "update", "-qq")

    def names(self, pattern: str) -> list[str]:
        """Names of the suite's packages that match a regular expression."""
        lines = self._apt("apt-cache", "search", "--names-only", pattern).splitlines()
        return [line.split(" ", 1)[0] for line in lines]

    def unpack(self, package: str, into: Path) -> Path:
        """Download a package and unpack it into a folder. Raises Unavailable."""
        into.mkdir(parents=True, exist_ok=True)
        self._apt("apt-get", "download", "-qq", package, cwd=into)
        archive = next(into.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg", "-x", archive.name, "root"], cwd=into, check=True)
        archive.unlink()
        return into / "root"

    def source(self, package: str, into: Path) -> Path:
        """Download what its authors released, an archive, into a folder. Raises Unavailable."""
        into.mkdir(parents=True, exist_ok=True)
        self._apt("apt-get", "source", "-qq", "--download-only", "--tar-only", package, cwd=into)
        return next(into.glob("*.orig.tar.*"))


def unpacked(package: str, suite: str, cache: Path) -> Path:
    """The root of a package of a suite; downloaded once, then kept. Raises Unavailable."""
    folder = cache / f"{package}-{suite}"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        source = Suite(suite, cache)
        source.update()
        source.unpack(package, folder)
        (folder / "ready").touch()
    return folder / "root"
