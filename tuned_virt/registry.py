# SPDX-License-Identifier: GPL-2.0-or-later
"""All tuners by name, as their plugins register them when they are imported."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from tuned_virt import plugins
from tuned_virt.core.installed_profiles import our_plugins
from tuned_virt.core.originals import shared_originals
from tuned_virt.core.plan import Values
from tuned_virt.core.tuner import Registered, Tuner
from tuned_virt.guests.restore import GuestRestore


def tuner(name: str) -> Tuner[Any, Any]:
    """One plugin's, without importing any other."""
    importlib.import_module(f"{plugins.__name__}.{name}")
    found = Registered.classes[name].on_host()
    assert isinstance(found, Tuner)
    return found


def kept_files() -> Values:
    """What the plugins keep of single kernel files, by path. Raises OriginalsError."""
    found: dict[str, str] = {}
    for name in sorted(our_plugins()):
        originals = shared_originals().record(name).originals
        if originals:
            importlib.import_module(f"{plugins.__name__}.{name}")
            found.update(Registered.classes[name].kernel_files(originals))
    return found


@functools.lru_cache(maxsize=1)
def tuners() -> Mapping[str, Tuner[Any, Any] | GuestRestore[Any]]:
    """All of them, in the order of restoring."""
    for module in pkgutil.iter_modules(plugins.__path__, f"{plugins.__name__}."):
        importlib.import_module(module.name)
    ours = [
        one for one in Registered.classes.values() if one.__module__.startswith(plugins.__name__)
    ]
    found = [one.on_host() for one in sorted(ours, key=lambda one: (one.restore_order, one.name))]
    return {one.name: one for one in found if isinstance(one, (Tuner, GuestRestore))}
