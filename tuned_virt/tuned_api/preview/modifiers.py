# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD's > and < in a preview: they compare with the original, which TuneD alone may know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tuned_virt.core.options import Modifier
from tuned_virt.core.preview import after_modifier, split
from tuned_virt.tuned_api.preview.shadow import UNREADABLE, Shadow

Modifiers = Callable[[Callable[[Any, Any], Any], Any, Any], Any]
"""Takes TuneD's own way, the profile's value and the current one; gives what is to be written."""


@dataclass
class AskedByActive:
    """Of the active profile: what it asked for, whatever is there by now."""

    shadow: Shadow
    asked: dict[str, str] = field(default_factory=dict)
    """By path, with the modifier."""

    def __call__(self, _own: Callable[[Any, Any], Any], new: Any, _current: Any) -> Any:
        """The value without its modifier, as if it had been written."""
        if new is None:
            return None
        self.asked[self.shadow.context.last_read] = str(new)
        return split(str(new))[1]


@dataclass
class AgainstOriginals:
    """Of the new profile; `asked` are values of the active one whose originals are not known."""

    shadow: Shadow
    asked: Mapping[str, str]

    def __call__(self, own: Callable[[Any, Any], Any], new: Any, current: Any) -> Any:
        """The value to write; None where there is nothing to write, or that is not known."""
        path = self.shadow.context.last_read
        if new is None or split(str(new))[0] is Modifier.EXACTLY:
            return new
        if UNREADABLE in str(current):
            reason = f"{new} compares with a value that only root can read"
            self.shadow.note(path, str(new), unknown=reason)
            return None
        if path not in self.asked:
            written = own(new, current)
            if written is None:
                self.shadow.note(path, str(current))
            return written
        found = after_modifier(str(new), self.asked[path], str(current).strip())
        if found is None:
            reason = f"{new} compares with the original, which only TuneD's process knows"
            self.shadow.note(path, str(new), unknown=reason)
        return found
