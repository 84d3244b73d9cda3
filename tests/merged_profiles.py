# SPDX-License-Identifier: GPL-2.0-or-later
"""Profiles as TuneD's own loader merges them; run under the TuneD of one generation.

    PYTHONPATH=…/dist-packages merged_profiles.py [CHECKOUT]

Each line of standard input is a JSON list of profile folders and names, each line of the output
what has become of them. Without CHECKOUT the function of our profiles is not there.
"""

from __future__ import annotations

import io
import json
import logging
import sys
from typing import Any


def merged(folders: list[str], names: str) -> dict[str, Any]:
    """The sections with their values expanded, and the arguments that TuneD writes for booting."""
    from tuned.plugins.plugin_bootloader import BootloaderPlugin
    from tuned.profiles import factory, loader, locator, merger, variables
    from tuned.utils.global_config import GlobalConfig

    known = variables.Variables()
    parts = locator.Locator(folders), factory.Factory(), merger.Merger(), GlobalConfig(), known
    profile = loader.Loader(*parts).load(names)
    boot = profile.units.get("bootloader")
    said = None
    if boot is not None:
        options = object.__new__(BootloaderPlugin)._get_effective_options(boot.options)
        said = [boot.uname_regex, known.expand(options["cmdline"]).strip()]
    units = {
        name: {
            "type": unit.type,
            "enabled": unit.enabled,
            "devices": unit.devices,
            "uname_regex": unit.uname_regex,
            "cpuinfo_regex": unit.cpuinfo_regex,
            "options": {key: known.expand(str(text)) for key, text in unit.options.items()},
        }
        for name, unit in profile.units.items()
    }
    return {"bootloader": said, "units": units}


def main() -> None:
    """Answer each line, with what TuneD has logged; an exception ends it."""
    for checkout in sys.argv[1:]:
        sys.path.insert(0, checkout)  # before what `make up` has installed
        from tuned_virt.tuned_api import import_hook

        import_hook.install()
    log = io.StringIO()
    logging.getLogger("tuned").addHandler(logging.StreamHandler(log))
    for line in sys.stdin:
        log.truncate(0)
        log.seek(0)
        found = merged(*json.loads(line))
        print(json.dumps({**found, "log": log.getvalue()}), flush=True)


if __name__ == "__main__":
    main()
