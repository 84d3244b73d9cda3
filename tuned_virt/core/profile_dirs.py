# SPDX-License-Identifier: GPL-2.0-or-later
"""Where TuneD looks for profiles and what it leaves at its end, as its tuned-main.conf says."""

from __future__ import annotations

import re

MAIN = "/etc/tuned/tuned-main.conf"


def named(text: str) -> list[str]:
    """The folders of profile_dirs= in tuned-main.conf's text, the one that wins last; or none."""
    found = re.split(r"[,;]", _value(text, "profile_dirs"))
    return [folder.strip() for folder in found if folder.strip()]


OFF = ("0", "NO", "FALSE", "OFF")
"""As configparser's getboolean has it; with another word TuneD does not start."""


def reapplies_sysctls(text: str) -> bool:
    """Whether TuneD applies the system's sysctl files after a profile: by default it does."""
    return _value(text, "reapply_sysctl").upper() not in OFF


def stays_applied(text: str) -> bool:
    """Whether TuneD is told to leave its tuning when it ends: rollback=not_on_exit, or one-shot."""
    one_shot = _value(text, "daemon").upper() in OFF
    return one_shot or _value(text, "rollback") == "not_on_exit"


def _value(text: str, name: str) -> str:
    found = re.findall(rf"^[ \t]*{name}[ \t]*=[ \t]*([^#\n]+)", text, re.MULTILINE)
    return found[-1].strip() if found else ""
