# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD plugin `virt_system`: kernel modules, and what becomes of hot-plugged memory."""

from __future__ import annotations

from tuned_virt.plugins import virt_system
from tuned_virt.tuned_api import planned_plugin


class VirtSystemPlugin(planned_plugin.PlannedPlugin):  # type: ignore[misc]
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

    tuner = virt_system.SystemTuner()
