# SPDX-License-Identifier: GPL-2.0-or-later
"""Plugins of ours as TuneD makes them: by its own classes, with none of its daemon."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

from tuned.plugins.base import Plugin
from tuned.plugins.instance.factory import Factory
from tuned.profiles.variables import Variables

HAS_PRIORITY = "priority" in inspect.signature(Plugin.create_instance).parameters
"""TuneD 2.23 and later."""


def plugin(
    kind: type[Any], tuner: Any, name: str, sections: dict[str, dict[str, str]]
) -> tuple[Any, list[Any]]:
    """A plugin of this kind, with an instance for each section; nothing is applied."""
    made = type("Plugin", (kind,), {"tuner": tuner, "__module__": f"x.plugin_{name}"})(
        SimpleNamespace(),
        SimpleNamespace(create=lambda name: None),
        SimpleNamespace(),
        SimpleNamespace(),
        SimpleNamespace(),
        Factory(),
        SimpleNamespace(get=lambda *_: False),
        Variables(),
    )
    instances = []
    for section, options in sections.items():
        devices = options.pop("devices", "*")
        placed = (section, 0, devices) if HAS_PRIORITY else (section, devices)
        instances.append(made.create_instance(*placed, None, None, None, options))
    return made, instances
