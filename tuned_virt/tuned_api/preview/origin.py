# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a write of a plugin comes from: its setting's name, and the line that wants it."""

from __future__ import annotations

import os
import re

from tuned_virt.core import sysctl_files
from tuned_virt.core.profile_lines import ProfileLine
from tuned_virt.kernel.files import KernelFS
from tuned_virt.tuned_api.preview.instances import ProfileInstances
from tuned_virt.tuned_api.preview.shadow import COUPLED, SYSCTL, ShadowWrite


def of(new: ProfileInstances, write: ShadowWrite) -> tuple[str, str, ProfileLine | None]:
    """The plugin and the setting of a write, and the line that wants it."""
    [one] = [one for one in new.instances if one.name == write.section]
    if one.type == "sysctl":
        name = sysctl_name(write.path)
        first = next(w for w in new.shadow.writes if w.path == write.path)
        if name not in one.instance.options or first is not write:
            return (
                one.type,
                name,
                sysctl_files.last_line(KernelFS(), [name]) or new.loaded.line(one.name, name),
            )
        return one.type, name, new.loaded.line(one.name, name)
    option = write.option or os.path.basename(write.path)
    if one.type == "sysfs":
        option = next((o for o in one.instance.options if _matches(o, write.path)), option)
        return one.type, write.path, new.loaded.line(one.name, option)
    setting = os.path.basename(write.path) if write.path in COUPLED else option
    return one.type, setting, new.loaded.line(one.name, option)


def _matches(pattern: str, path: str) -> bool:
    return path in {os.path.normpath(pattern)} or bool(
        re.fullmatch(_as_regex(os.path.normpath(pattern)), path)
    )


def _as_regex(pattern: str) -> str:
    """A glob whose wild cards stay within one part of a path."""
    return re.escape(pattern).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")


def sysctl_name(path: str) -> str:
    """A sysctl as profiles name it: the kernel's slashes are dots, and dots are slashes."""
    if not path.startswith(SYSCTL):
        return path
    return path[len(SYSCTL) :].translate(str.maketrans("./", "/."))
