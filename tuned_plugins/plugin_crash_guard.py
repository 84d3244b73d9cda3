# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD plugin `crash_guard`: originals of what TuneD's own plugins set, kept against a crash."""

from __future__ import annotations

from tuned_virt import registry
from tuned_virt.plugins import crash_guard
from tuned_virt.tuned_api import planned_plugin


class CrashGuardPlugin(planned_plugin.PlannedPlugin):  # type: ignore[misc]
    """
    `crash_guard`::

    Keeps the values of kernel files that TuneD's own plugins set, so that they come back even after
    TuneD was killed. Its section must have a lower `priority` than all others of the profile.
    +
    .Keep swappiness
    ====
    ----
    [crash_guard]
    priority=-100
    files=/proc/sys/vm/swappiness
    ----
    ====
    """

    tuner = crash_guard.CrashGuardTuner(registry.kept_files)
