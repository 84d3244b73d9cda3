# SPDX-License-Identifier: GPL-2.0-or-later
"""Profiles in a folder of a test's own, previewed by the TuneD of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tuned_virt.core.preview import PreviewedValue, SwitchPreview
from tuned_virt.tuned_api import import_hook
from tuned_virt.tuned_api.preview import profile, switch
from tuned_virt.tuned_api.preview.ours import GuestSection

SETTING = "fs.lease-break-time"
PATH = f"/proc/sys/{SETTING.replace('.', '/')}"
NOW = Path(PATH).read_text().strip()
"""A setting that no other test writes."""


class Profiles:
    """Texts of tuned.conf by name."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import_hook.install()
        self.folder = folder
        monkeypatch.setattr(profile, "_folders", lambda _config: [str(folder)])
        monkeypatch.setattr(profile, "POST_LOADED", str(folder / "post_loaded_profile"))

    def write(self, name: str, text: str) -> str:
        """One profile; the path of its file."""
        file = self.folder / name / "tuned.conf"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"[main]\nsummary=of a test\n{text}")
        return str(file)

    def both(
        self, text: str, active: str = "", guarded: Mapping[str, str] | None = None
    ) -> tuple[SwitchPreview, list[GuestSection]]:
        """A switch from a profile of one text to one of another."""
        self.write("new", text)
        if active:
            self.write("active", active)
        return switch.preview(["active"] if active else [], ["new"], guarded or {})

    def preview(self, *args: Any, **named: Any) -> SwitchPreview:
        """The same without the sections for guests."""
        return self.both(*args, **named)[0]


def one(found: SwitchPreview) -> PreviewedValue:
    """The only value."""
    [value] = found.values
    return value


def reasons(found: SwitchPreview) -> list[str]:
    """All that is not known."""
    return [str(remark) for remark in found.not_known]
