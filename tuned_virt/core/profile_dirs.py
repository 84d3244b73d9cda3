# SPDX-License-Identifier: GPL-2.0-or-later
"""Where TuneD looks for profiles, as its tuned-main.conf says."""

from __future__ import annotations

import re

MAIN = "/etc/tuned/tuned-main.conf"


def named(text: str) -> list[str]:
    """The folders of profile_dirs= in tuned-main.conf's text, the one that wins last; or none."""
    found = re.findall(r"^[ \t]*profile_dirs[ \t]*=[ \t]*([^#\n]+)", text, re.MULTILINE)
    return [folder.strip() for folder in found[-1].split(",") if folder.strip()] if found else []
