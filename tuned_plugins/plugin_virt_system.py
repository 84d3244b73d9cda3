# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD plugin `virt_system`: kernel modules, and what becomes of hot-plugged memory."""

from __future__ import annotations

from tuned_virt import system, tuned_api


class VirtSystemPlugin(tuned_api.PlannedPlugin):  # type: ignore[misc]
    """
    `virt_system`::

    Loads kernel modules without ever reloading one that is in use, and brings hot-plugged memory
    online in guests unless the distribution does so itself.
    +
    .Have vhost_net
    ====
    ----
    [virt_system]
    load_modules=vhost_net
    ----
    ====
    """

    tuner = system.SystemTuner()
