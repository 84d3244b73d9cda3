# SPDX-License-Identifier: GPL-2.0-or-later
"""Fetches what is not there yet, and says of each package what there is, or why not."""

from __future__ import annotations

import fcntl

from tests import debian
from tests.published import machines
from tests.published.sources import FOLDER, HWLOC, SOURCES, Source


def there(source: Source) -> str:
    """What there is of a package that was fetched."""
    if source is HWLOC:
        return machines.prepare()
    return f"{len(source.files(source.domains))} domains"


def main() -> None:
    """One process at a time."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for source in SOURCES:
            try:
                print(f"{source.name} {source.fetch()}: {there(source)}", flush=True)
            except debian.Unavailable as error:
                print(f"{source.name}: its tests will be skipped: {error}", flush=True)


if __name__ == "__main__":
    main()
