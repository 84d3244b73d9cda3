# SPDX-License-Identifier: GPL-2.0-or-later
"""Fetch, before any test begins, what test tiers take from Debian's archive; once, then it is kept.

python -m tests.prepare [unit] [browser] [system] [vm] [packages] [ansible] [matrix]

Exit status: 0 when all is there, 2 when something cannot be had.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests import debian

SOURCES = "tests.published"
"""Fetches what others publish; says so itself where that cannot be had."""


def sources() -> None:
    """What the unit tier reads of others' machines and guests."""
    if importlib.util.find_spec(SOURCES):
        subprocess.run([sys.executable, "-m", SOURCES], check=True)


def generations() -> None:
    """The TuneD versions of the system tier."""
    from tests import sandbox

    for version in sandbox.SUITES:
        sandbox.tuned_layer(version)


def kernels() -> None:
    """The kernels of the VM tier; an image boots with one, too."""
    from tests.vm import boot

    for series in os.environ.get("KERNELS", "6.1").split():
        boot.kernel_image(series)


def agent() -> None:
    """The guest agent of the system tier's guests."""
    from tests import agent_guest

    agent_guest.agent()


def tools() -> None:
    """What is unpacked into the VM tier's machine."""
    from tests.vm import boot

    boot.tools()


def machines() -> None:
    """Kernels and disks of the matrix's cells; each disk is booted once."""
    from tests.matrix import cells, machine

    for cell in cells.chosen(os.environ.get("CELLS") or cells.ALL_PAIRS):
        machine.learned_disk(cell)


def root() -> None:
    """The system that packages are installed into."""
    from tests.packages import roots

    roots.base()


def prometheus() -> None:
    """What checks metrics and alert rules."""
    from tests.packages import monitoring

    monitoring.promtool()
    monitoring.node_exporter()


ARCHIVE: dict[str, Sequence[Callable[[], None]]] = {
    "unit": (sources,),
    "browser": (),
    "system": (sources, generations, kernels, agent),
    "vm": (kernels, tools),
    "packages": (root, kernels, prometheus),
    "ansible": (generations,),
    "matrix": (machines,),
}


def fetch(tiers: Sequence[str]) -> None:
    """All that the tiers need. What mmdebstrap does takes no download of apt's, so it goes beside.

    Raises debian.Unavailable, boot.NotRunError, OSError and CalledProcessError.
    """
    wanted = dict.fromkeys(step for tier in tiers for step in ARCHIVE[tier])
    with ThreadPoolExecutor(2) as pool:
        beside = pool.submit(root) if wanted.pop(root, root) is None else None
        for step in wanted:
            step()
        if beside is not None:
            beside.result()


def main() -> int:
    """See the module."""
    unknown = set(sys.argv[1:]) - ARCHIVE.keys()
    if unknown:
        print(f"{', '.join(sorted(unknown))}: not one of {', '.join(ARCHIVE)}", file=sys.stderr)
        return 2
    started = time.monotonic()
    try:
        fetch(sys.argv[1:])
    except (debian.Unavailable, OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"what the tests need could not be fetched: {error}", file=sys.stderr)
        return 2
    print(f"what the tests need is here after {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
