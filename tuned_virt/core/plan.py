# SPDX-License-Identifier: GPL-2.0-or-later
"""What deciding yields: the changes, each with its reason, and what cannot or need not be."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tuned_virt.frozen_dataclasses import dataclass, field

Values = Mapping[str, str]
"""Setting → value, both as the kernel writes them."""


def shown(setting: str) -> str:
    """A setting for people: without what its device is beyond its name ("sda#17/scheduler")."""
    return re.sub(r"#[^/]*", "", setting)


@dataclass(frozen=True)
class Change:
    """One write: which setting, where, from what to what, why, and whether it may take seconds.

    `before` and `after` are of the type that the plugin's `Writer` reads and writes.
    """

    setting: str
    path: str
    before: object
    after: object
    why: str
    slow: bool = False

    def __str__(self) -> str:
        return f"{shown(self.setting)}: '{self.before}' -> '{self.after}' ({self.why})"


@dataclass(frozen=True)
class Plan:
    """The outcome of deciding, before anything is written.

    changes   in the order of writing
    originals values to keep before the first write, for the way back
    wanted    setting → value that verify expects afterwards
    refused   setting → why it was asked for and is not set; verify fails
    missing   setting → why this kernel does not have it; verify follows TuneD's ignore_missing
    pending   setting → why its original cannot be put back now; tried again
    notes     what an administrator should know and verify does not fail for
    """

    changes: tuple[Change, ...] = ()
    originals: Values = field(default_factory=dict)
    wanted: Values = field(default_factory=dict)
    refused: Values = field(default_factory=dict)
    missing: Values = field(default_factory=dict)
    pending: Values = field(default_factory=dict)
    notes: tuple[str, ...] = ()
