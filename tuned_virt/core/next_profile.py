# SPDX-License-Identifier: GPL-2.0-or-later
"""What TuneD applies next, and whether that takes over what a plugin of ours has set.

TuneD's own plugins take what they find for what was there before, and put that back. So a value of
ours may stay over a switch only where the next profile has the same plugin, and nothing of TuneD's
own in it sets the same.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from tuned_virt.core.installed_profiles import InstalledProfiles, LoadedProfile
from tuned_virt.core.stock_files import pattern
from tuned_virt.core.system_root import OutsideRootError
from tuned_virt.frozen_dataclasses import dataclass, field


@dataclass(frozen=True)
class NextProfile:
    """What is applied next.

    names     of the profiles, also the post-loaded one
    settled   set once it is applied; None where another process does that
    profiles  among which they are
    """

    names: tuple[str, ...]
    settled: threading.Event | None = None
    profiles: InstalledProfiles = field(default_factory=InstalledProfiles)

    def takes_over(
        self, plugin: str, files: Collection[str] = (), conflicting: tuple[str, str] = ("", "")
    ) -> bool:
        """See `takes_over`; False where the profiles cannot be read."""
        try:
            chain = [one for name in self.names for one in self.profiles.chain(name)]
        except (OSError, OutsideRootError):
            return False
        return takes_over(chain, plugin, files, conflicting)


def takes_over(
    chain: Collection[LoadedProfile],
    plugin: str,
    files: Collection[str],
    conflicting: tuple[str, str],
) -> bool:
    """Whether profiles have a plugin of ours, and nothing that sets the same.

    files        that the plugin has set
    conflicting  TuneD's plugin and the option of it that sets the same of devices

    Of profiles that TuneD cannot load none is applied: it applies those in force once more. Pure.
    """
    if any(one.wrong for one in chain):
        return True
    stock = [*_options(chain)]
    return (
        any(plugin in one.plugins for one in chain)
        and conflicting not in stock
        and not any(fnmatchcase(file, pattern(*option)) for option in stock for file in files)
    )


def _options(chain: Iterable[LoadedProfile]) -> Iterable[tuple[str, str]]:
    """Plugin and name of every option that is set."""
    for profile in chain:
        for section, options in profile.options.items():
            plugin = options.get("type", section)
            yield from ((plugin, name) for name, text in options.items() if text)
