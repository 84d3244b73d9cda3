"""Put plugins, library, profiles and command into a system, or take them away again.

usage: layout.py install|uninstall DESTDIR PREFIX SITELIB

Only what differs is written, so that a second install changes nothing; it says how many files it
wrote. Edited variables files are kept by both. Uninstalling from the running system (an empty
DESTDIR) puts back first what is tuned.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
PROFILES = ("virtual-host-plus", "virtual-guest-plus")
STATE = ("/var/lib/tuned-virt", "/run/tuned-virt")


class Layout:
    """Where everything goes; paths are given as the installed system has them."""

    def __init__(self, destdir: str, prefix: str, sitelib: str) -> None:
        self.destdir = destdir
        self.prefix = prefix
        self.sitelib = sitelib

    def real(self, path: str) -> Path:
        """Where a path of the installed system is now."""
        return Path(self.destdir + path)

    def files(self) -> Iterator[tuple[Path, str, int]]:
        """Source, target and mode of each file but the variables."""
        for file in sorted((SOURCE / "tuned_virt").rglob("*.py")):
            yield file, f"{self.sitelib}/{file.relative_to(SOURCE)}", 0o644
        for file in sorted((SOURCE / "tuned_plugins").glob("*.py")):
            yield file, f"{self.sitelib}/tuned/plugins/{file.name}", 0o644
        for name in PROFILES:
            source = SOURCE / "profiles" / name / "tuned.conf"
            yield source, f"/usr/lib/tuned/profiles/{name}/tuned.conf", 0o644
        yield SOURCE / "scripts/tuned-virt", f"{self.prefix}/bin/tuned-virt", 0o755
        drop_in = "/usr/lib/systemd/system/tuned.service.d/tuned-virt.conf"
        yield SOURCE / "scripts/tuned.service.conf", drop_in, 0o644

    def variables(self) -> Iterator[tuple[Path, str]]:
        """Source and target of each variables file, which administrators edit."""
        for name in PROFILES:
            file = f"{name}-variables.conf"
            yield SOURCE / "profiles" / file, f"/etc/tuned/{file}"

    def links(self) -> Iterator[tuple[str, str]]:
        """Target and text of each link: TuneD up to 2.24 looks for profiles one folder higher."""
        for name in PROFILES:
            yield f"/usr/lib/tuned/{name}", f"profiles/{name}"


def install(layout: Layout) -> int:
    """Write what differs; returns how many files that were."""
    written = 0
    for source, path, mode in layout.files():
        written += put(source, layout.real(path), mode)
    for source, path in layout.variables():
        if not layout.real(path).exists():
            written += put(source, layout.real(path), 0o644)
    for path, text in layout.links():
        link = layout.real(path)
        if not link.is_symlink() or os.readlink(link) != text:
            link.unlink(missing_ok=True)
            link.symlink_to(text)
            written += 1
    return written


def put(source: Path, target: Path, mode: int) -> bool:
    """Replace a file whose bytes differ; whether they did."""
    content = source.read_bytes()
    if target.is_file() and target.read_bytes() == content:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.new")
    new.write_bytes(content)
    new.chmod(mode)
    new.replace(target)
    return True


def uninstall(layout: Layout) -> None:
    """Untune the running system, and take every file away but edited variables."""
    command = layout.real(f"{layout.prefix}/bin/tuned-virt")
    if not layout.destdir and command.exists():
        untune(command)
    for path, _ in layout.links():
        layout.real(path).unlink(missing_ok=True)
    for _, path, _ in layout.files():
        remove(layout.real(path))
    for source, path in layout.variables():
        target = layout.real(path)
        if target.exists() and target.read_bytes() != source.read_bytes():
            print(f"kept, because edited: {path}")
        else:
            target.unlink(missing_ok=True)
    if not layout.destdir:
        for path in STATE:
            shutil.rmtree(path, ignore_errors=True)


def untune(command: Path) -> None:
    """tuned-adm off where one of our profiles is active, and whatever a crash left."""
    active = subprocess.run(["tuned-adm", "active"], capture_output=True, text=True, check=False)
    if any(name in active.stdout for name in PROFILES):
        subprocess.run(["tuned-adm", "off"], check=True)
    subprocess.run([str(command), "restore"], check=False)


def remove(file: Path) -> None:
    """Remove a file, what Python compiled of it, and the folders that this leaves empty."""
    file.unlink(missing_ok=True)
    for compiled in file.parent.glob(f"__pycache__/{file.stem}.*.pyc"):
        compiled.unlink()
    for folder in (file.parent / "__pycache__", file.parent, file.parent.parent):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def main() -> int:
    """Exit codes: 0 done, 2 wrong usage or not possible."""
    if len(sys.argv) != 5 or sys.argv[1] not in ("install", "uninstall"):
        print(__doc__, file=sys.stderr)
        return 2
    os.umask(0o022)
    layout = Layout(*sys.argv[2:])
    try:
        if sys.argv[1] == "install":
            print(f"installed: {install(layout)} files differed")
        else:
            uninstall(layout)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
