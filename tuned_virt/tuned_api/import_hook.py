# SPDX-License-Identifier: GPL-2.0-or-later
"""Lets TuneD import our plugins and function from where pip has put them, outside its own folder.

A package `tuned.plugins` in a virtual environment would hide the distribution's, or be hidden by
it: a regular package wins over a namespace (Python's import reference, "Regular packages"). So
`tuned-virt-plus.pth` (the site module's documentation) adds this finder, which is asked last, and
only ever answers for modules that TuneD's own folders do not have.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

SITE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDER = os.path.join(SITE, "tuned_plugins")
PREFIXES = ("tuned.plugins.plugin_", "tuned.profiles.functions.function_")


class PluginFinder(MetaPathFinder):
    """Finds `tuned.plugins.plugin_NAME` and `tuned.profiles.functions.function_NAME`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None for everything but our modules."""
        if not fullname.startswith(PREFIXES):
            return None
        file = os.path.join(FOLDER, f"{fullname.rpartition('.')[2]}.py")
        if not os.path.isfile(file):
            return None
        return importlib.util.spec_from_file_location(fullname, file)


def install() -> None:
    """Be asked after all other finders."""
    if not any(isinstance(finder, PluginFinder) for finder in sys.meta_path):
        sys.meta_path.append(PluginFinder())
