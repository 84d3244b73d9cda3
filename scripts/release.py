# SPDX-License-Identifier: GPL-2.0-or-later
"""Version, date and source archive of a release; all the rest is made from these.

usage: release.py version|dist|spec|changelog

`dist` writes build/dist/tuned-virt-plus-VERSION.tar.gz: the files that git knows, as they are now.
The same files give the same bytes, wherever and whenever. The version is in tuned_virt/__init__.py
alone; the spec and debian/changelog have it in the archive, and `spec` and `changelog` print them.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
NAME = "tuned-virt-plus"
SPEC = f"rpm/{NAME}.spec"
CHANGELOG = "debian/changelog"
MAINTAINER = "tuned-virt-plus developers <tuned-virt-plus@localhost.localdomain>"


def version() -> str:
    """The version of this tree."""
    text = (SOURCE / "tuned_virt/__init__.py").read_text()
    found = re.search(r'^__version__ = "([\d.]+)"$', text, re.MULTILINE)
    assert found, "tuned_virt/__init__.py has no __version__"
    return found[1]


def epoch() -> int:
    """When this tree came to be: SOURCE_DATE_EPOCH, else the last commit, else its files' time."""
    given = os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct")
    return int(given or (SOURCE / "CHANGELOG.md").stat().st_mtime)


def date() -> str:
    """The same as a day."""
    return time.strftime("%Y-%m-%d", time.gmtime(epoch()))


def git(*arguments: str) -> str:
    """What git prints in this tree; "" where it is no checkout, or git is not installed."""
    if not (SOURCE / ".git").exists():
        return ""
    command = ["git", "-c", f"safe.directory={SOURCE}", "-C", str(SOURCE), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        return ""
    return done.stdout


def files() -> list[str]:
    """Paths of what belongs to the source, sorted."""
    listed = git("ls-files", "-z").split("\0")
    if listed == [""]:
        walked = (path for path in SOURCE.rglob("*") if path.is_file() or path.is_symlink())
        listed = [str(path.relative_to(SOURCE)) for path in walked]
    return sorted(
        name
        for name in listed
        if name and not name.startswith("build/") and os.path.lexists(SOURCE / name)
    )


def spec() -> str:
    """The RPMs' spec, with version and changelog."""
    text = (SOURCE / SPEC).read_text()
    text = re.sub(r"^(Version:\s+).*$", rf"\g<1>{version()}", text, count=1, flags=re.MULTILINE)
    day = time.strftime("%a %b %d %Y", time.gmtime(epoch()))
    entry = f"* {day} {MAINTAINER} - {version()}-1\n- See CHANGELOG.md\n"
    return re.sub(r"(?<=^%changelog\n).*", entry, text, flags=re.MULTILINE | re.DOTALL)


def changelog() -> str:
    """Debian's changelog: one entry, that of this version."""
    return (
        f"{NAME} ({version()}) unstable; urgency=medium\n\n"
        "  * See CHANGELOG.md.\n\n"
        f" -- {MAINTAINER}  {formatdate(epoch())}\n"
    )


def contents() -> Iterator[tuple[str, bytes, int]]:
    """Path, content and mode of each file of the archive."""
    for name in files():
        executable = os.access(SOURCE / name, os.X_OK)
        stamped = spec().encode() if name == SPEC else None
        if name != CHANGELOG:
            content = stamped or (SOURCE / name).read_bytes()
            yield name, content, 0o755 if executable else 0o644
    yield CHANGELOG, changelog().encode(), 0o644


def dist() -> Path:
    """Write the archive: no order, time, owner or mode of this machine is in it."""
    target = SOURCE / f"build/dist/{NAME}-{version()}.tar.gz"
    target.parent.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content, mode in contents():
            member = tarfile.TarInfo(f"{NAME}-{version()}/{name}")
            member.size, member.mode, member.mtime = len(content), mode, epoch()
            archive.addfile(member, io.BytesIO(content))
    target.write_bytes(gzip.compress(packed.getvalue(), mtime=epoch()))
    return target


def main() -> int:
    """Exit codes: 0 done, 2 wrong usage."""
    actions = {"version": version, "dist": dist, "spec": spec, "changelog": changelog}
    if len(sys.argv) != 2 or sys.argv[1] not in actions:
        print(__doc__, file=sys.stderr)
        return 2
    print(str(actions[sys.argv[1]]()).rstrip("\n"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
