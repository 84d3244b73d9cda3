# SPDX-License-Identifier: GPL-2.0-or-later
"""Which profiles TuneD is told to apply, by its own files."""

from __future__ import annotations

NAMES, MODE = "/etc/tuned/active_profile", "/etc/tuned/profile_mode"
AUTOMATIC, MANUAL = "auto", "manual"


def text_of(path: str) -> str:
    """A file's text, "" where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def active() -> dict[str, object]:
    """Names and mode. Without either TuneD chooses the profile itself."""
    names, mode = text_of(NAMES).split(), text_of(MODE).strip()
    return {"names": names, "mode": mode or (MANUAL if names else AUTOMATIC)}
