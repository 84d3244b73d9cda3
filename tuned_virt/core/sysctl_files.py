# SPDX-License-Identifier: GPL-2.0-or-later
"""The system's own sysctl files, which TuneD applies once more after its profile."""

from __future__ import annotations

import re
from collections.abc import Collection

from tuned_virt.core.profile_lines import ProfileLine
from tuned_virt.kernel.files import KernelFileError, KernelFS

FOLDERS = ("/run/sysctl.d", "/etc/sysctl.d")
"""Of two files of the same name the one in /etc counts."""

LAST = "/etc/sysctl.conf"


def last_line(fs: KernelFS, names: Collection[str]) -> ProfileLine | None:
    """The line that sets one of these sysctls last, in the order in which TuneD reads the files.

    A file that cannot be read is passed over, as by TuneD, which says so.
    """
    files = {path.rpartition("/")[2]: path for at in FOLDERS for path in fs.glob(f"{at}/*.conf")}
    found = None
    for path in [*(files[name] for name in sorted(files)), LAST]:
        try:
            text = fs.read_optional(path) or ""
        except KernelFileError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if _name(line) in names:
                found = ProfileLine(path, number, line.strip())
    return found


def value(line: ProfileLine) -> str:
    """What a line of such a file sets."""
    return line.text.partition("=")[2].strip()


def _name(line: str) -> str:
    """The sysctl that a line sets; the kernel's form with slashes is the same."""
    name, equals, _ = line.partition("=")
    found = re.fullmatch(r"[^#;\s/.]+(?:/[^\s.]+)+", name.strip())
    return "" if not equals else name.strip().replace("/", ".") if found else name.strip()
