# SPDX-License-Identifier: GPL-2.0-or-later
"""Put plugins, library, profiles and command into a system, or take them away again.

`make install`, the RPMs and the Debian packages all come from here, so that a new plugin, module or
profile is in every one of them.

Only what differs is written, so that a second install changes nothing; it says how many files it
wrote. Edited variables files are kept by both. Uninstalling from the running system (an empty
--destdir) first returns to the profile that was active before. `list` prints the %files section of
an RPM's package.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
PROFILES = tuple(sorted(file.parent.name for file in SOURCE.glob("profiles/*/tuned.conf")))
STATE = ("/var/lib/tuned-virt", "/run/tuned-virt")
RECORD = "/etc/tuned/virt_plus_previous.json"
"""What `tuned-virt disable` returns to; the rest of the folder is TuneD's."""

MAIN, HOST, GUEST, METRICS = "main", "host", "guest", "metrics"
RECOMMEND, NUMAD = "recommend", "numad"
LIBRARY = ("*.py", "*.json", "*.jinja", "*.css", "*.js")
"""What the library consists of: modules, JSON Schemas, templates with their styles and script."""

BY_DEFAULT = (MAIN, HOST, GUEST, METRICS)
"""Packages that `make install` installs."""

ON_DEMAND = (RECOMMEND, NUMAD)
"""The others: they change what TuneD chooses by itself, or stand for another package's program."""

OLD_FOLDER = "/usr/lib/tuned"
NEW_FOLDER = "/usr/lib/tuned/profiles"
"""Where TuneD looks for profiles: until 2.24 and on RHEL 9, and since (upstream's tuned.spec)."""


SHARED = "tuned-virt-plus"
"""The folder of data below share/, which is for Prometheus and Grafana."""

COMMAND = "/usr/bin/tuned-virt"
"""How units and profiles name the command."""

OWNERS = (
    ("/recommend.d/", RECOMMEND),
    (r"/bin/numad$|/numad\.8$", NUMAD),
    (f"/system/tuned-virt-metrics|/share/{SHARED}/", METRICS),
    ("/(virtual|virt-plus)-guest", GUEST),
    ("/(virtual|virt-plus)-host|/plugin_vm_|/libvirt/", HOST),
)
"""Patterns of where a file is installed, and the package that it then belongs to; else MAIN."""


@dataclass(frozen=True)
class Entry:
    """A file to install: where from, where to, its mode, and the package that it belongs to.

    `command` is where the command is, in place of COMMAND.
    """

    source: Path
    target: str
    mode: int = 0o644
    command: str = COMMAND

    def content(self) -> bytes:
        """The file's bytes as they are installed."""
        return self.source.read_bytes().replace(COMMAND.encode(), self.command.encode())

    @property
    def package(self) -> str:
        """What runs guests goes to the host's package, what only one profile needs to its own."""
        named = (package for pattern, package in OWNERS if re.search(pattern, self.target))
        return next(named, MAIN)


@dataclass(frozen=True)
class Layout:
    """Where everything goes; paths are given as the installed system has them.

    `folders` are those that TuneD finds profiles in: a real folder in the first, links in others.
    """

    destdir: str
    prefix: str
    sitelib: str
    folders: tuple[str, ...] = (NEW_FOLDER, OLD_FOLDER)
    packages: tuple[str, ...] = BY_DEFAULT

    def real(self, path: str) -> Path:
        """Where a path of the installed system is now."""
        return Path(self.destdir + path)

    def files(self) -> Iterator[Entry]:
        """Every file of the chosen packages but the variables."""
        for entry in (*self._python(), *self._tuned(), *self._system(), *self._manuals()):
            if entry.package in self.packages:
                yield replace(entry, command=f"{self.prefix}/bin/tuned-virt")

    def _python(self) -> Iterator[Entry]:
        library = SOURCE / "tuned_virt"
        for file in sorted(one for kind in LIBRARY for one in library.rglob(kind)):
            yield Entry(file, f"{self.sitelib}/{file.relative_to(SOURCE)}")
        for file in sorted((SOURCE / "tuned_plugins").glob("plugin_*.py")):
            yield Entry(file, f"{self.sitelib}/tuned/plugins/{file.name}")
        for file in sorted((SOURCE / "tuned_plugins").glob("function_*.py")):
            yield Entry(file, f"{self.sitelib}/tuned/profiles/functions/{file.name}")
        yield Entry(SOURCE / "scripts/tuned-virt", f"{self.prefix}/bin/tuned-virt", 0o755)
        yield Entry(SOURCE / "scripts/numad", f"{self.prefix}/bin/numad", 0o755)

    def _tuned(self) -> Iterator[Entry]:
        for name in PROFILES:
            for file in sorted((SOURCE / "profiles" / name).iterdir()):
                yield Entry(file, f"{self.folders[0]}/{name}/{file.name}")
        for file in sorted((SOURCE / "profiles/recommend.d").glob("*.conf")):
            yield Entry(file, f"{OLD_FOLDER}/recommend.d/{file.name}")

    def _system(self) -> Iterator[Entry]:
        units = "/usr/lib/systemd/system"
        yield Entry(
            SOURCE / "scripts/tuned.service.conf", f"{units}/tuned.service.d/tuned-virt.conf"
        )
        for file in sorted((SOURCE / "scripts").glob("tuned-virt-*.[st]*er*")):
            yield Entry(file, f"{units}/{file.name}")
        for file in sorted((SOURCE / "hooks").glob("*.d/*")):
            yield Entry(file, f"/etc/libvirt/hooks/{file.parent.name}/{file.name}", 0o755)
        for file in sorted((SOURCE / "monitoring").iterdir()):
            yield Entry(file, f"{self.prefix}/share/{SHARED}/{file.name}")
        completions = f"{self.prefix}/share/bash-completion/completions"
        yield Entry(SOURCE / "scripts/tuned-virt.bash", f"{completions}/tuned-virt")

    def _manuals(self) -> Iterator[Entry]:
        """The manual pages that `make man` has built; none where it has not."""
        for file in sorted((SOURCE / "build/man").glob("*.[1-8]")):
            yield Entry(file, f"{self.prefix}/share/man/man{file.suffix[1]}/{file.name}")

    def variables(self) -> Iterator[Entry]:
        """The variables files of profiles, which administrators edit."""
        for file in sorted((SOURCE / "profiles").glob("*-variables.conf")):
            entry = Entry(file, f"/etc/tuned/{file.name}")
            if entry.package in self.packages:
                yield entry

    def links(self) -> Iterator[tuple[str, str]]:
        """Target and text of each link, so that both generations of TuneD find one profile."""
        for folder in self.folders[1:]:
            for name in PROFILES:
                if Entry(SOURCE, f"{folder}/{name}").package in self.packages:
                    text = os.path.relpath(f"{self.folders[0]}/{name}", folder)
                    yield f"{folder}/{name}", text


def install(layout: Layout) -> int:
    """Write what differs; returns how many files that were."""
    written = 0
    for entry in layout.files():
        written += put(entry, layout.real(entry.target))
    for entry in layout.variables():
        if not layout.real(entry.target).exists():
            written += put(entry, layout.real(entry.target))
    for path, text in layout.links():
        link = layout.real(path)
        if not link.is_symlink() or os.readlink(link) != text:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(text)
            written += 1
    return written


def put(entry: Entry, target: Path) -> bool:
    """Replace a file whose bytes differ; whether they did."""
    content = entry.content()
    if target.is_file() and target.read_bytes() == content:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.new")
    new.write_bytes(content)
    new.chmod(entry.mode)
    new.replace(target)
    return True


def uninstall(layout: Layout) -> None:
    """Have the profile before active again; take every file away but edited variables."""
    command = layout.real(f"{layout.prefix}/bin/tuned-virt")
    if not layout.destdir and command.exists():
        subprocess.run([str(command), "disable"], check=False)
    for path, _ in layout.links():
        layout.real(path).unlink(missing_ok=True)
    for entry in layout.files():
        remove(layout.real(entry.target))
    for entry in layout.variables():
        target = layout.real(entry.target)
        if target.exists() and target.read_bytes() != entry.source.read_bytes():
            print(f"kept, because edited: {entry.target}")
        else:
            target.unlink(missing_ok=True)
    if not layout.destdir:
        for path in STATE:
            shutil.rmtree(path, ignore_errors=True)
        Path(RECORD).unlink(missing_ok=True)


def remove(file: Path) -> None:
    """Remove a file, what Python compiled of it, and the folders that this leaves empty."""
    file.unlink(missing_ok=True)
    for compiled in file.parent.glob(f"__pycache__/{file.stem}.*.pyc"):
        compiled.unlink()
    for folder in (file.parent / "__pycache__", file.parent, file.parent.parent):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def listing(layout: Layout) -> Iterator[str]:
    """Lines of the %files section of the chosen packages, for rpmbuild's `%files -f`."""
    compiled = set()
    for entry in layout.files():
        config = "%config(noreplace) " if entry.target.startswith("/etc/") else ""
        yield f"{config}{entry.target}{'*' if '/man/' in entry.target else ''}"
        if entry.target.endswith(".py"):
            folder, name = os.path.split(entry.target)
            yield f"{folder}/__pycache__/{name[:-3]}.*.pyc"
            if "/tuned_virt" in folder:
                compiled |= {folder, f"{folder}/__pycache__"}
        if Path(entry.target).parent.name in (*PROFILES, "tuned.service.d", SHARED):
            compiled.add(str(Path(entry.target).parent))
    yield from (f"%dir {folder}" for folder in sorted(compiled))
    yield from (f"%config(noreplace) {entry.target}" for entry in layout.variables())
    yield from (path for path, _ in layout.links())


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n", maxsplit=1)[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("action", choices=("install", "uninstall", "list"))
    parser.add_argument("--destdir", default="", help="install below this folder")
    parser.add_argument("--prefix", default="/usr", help="of command, manuals and completion")
    parser.add_argument("--sitelib", required=True, help="the folder that has TuneD's package")
    parser.add_argument(
        "--folder",
        action="append",
        help=f"where TuneD looks for profiles; {NEW_FOLDER} and {OLD_FOLDER}",
    )
    parser.add_argument(
        "--package",
        action="append",
        choices=(*BY_DEFAULT, *ON_DEMAND),
        help=f"only these; {', '.join(BY_DEFAULT)}",
    )
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> Layout:
    """The layout that a command line asks for."""
    folders: Sequence[str] = options.folder or (NEW_FOLDER, OLD_FOLDER)
    packages: Sequence[str] = options.package or BY_DEFAULT
    return Layout(options.destdir, options.prefix, options.sitelib, tuple(folders), tuple(packages))


def main() -> int:
    """Exit codes: 0 done, 2 wrong usage or not possible."""
    options = arguments()
    layout = chosen(options)
    os.umask(0o022)
    try:
        if options.action == "install":
            print(f"installed: {install(layout)} files differed")
        elif options.action == "uninstall":
            uninstall(layout)
        else:
            print("\n".join(listing(layout)))
    except (OSError, subprocess.SubprocessError) as error:
        print(f"{options.action}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
