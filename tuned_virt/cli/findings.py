# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines of TuneD's verify, its own plugins' and ours, taken apart."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tuned_virt.frozen_dataclasses import dataclass

LINE = re.compile(
    r"^\w+\s+[\w.]+: verify: (?P<result>passed|failed|note|skipped, missing): (?P<text>.*)$"
)
SETTING = re.compile(
    r"^(?:device (?P<device>.+?): )?"
    r"(?:'(?P<option>[^']*)'(?: = '(?P<found>[^']*)'(?:, expected '(?P<wanted>[^']*)')?)?)?"
)

OF_A_FILE = re.compile(r"'\w+': /\S+: line \d+: '([^'=]+)=")
"""A line of a settings file that cannot be applied: its setting says more than the plugin."""

OF_GUESTS = "vm_"
"""What options begin with whose devices are guests."""


@dataclass(frozen=True)
class VerifyLine:
    """One line of verify: passed, failed, note or missing. What it does not tell is None.

    guest   the device, where that is a guest
    """

    result: str
    text: str
    device: str | None = None
    option: str | None = None
    found: str | None = None
    wanted: str | None = None
    guest: str | None = None

    @property
    def name(self) -> str:
        """The setting, for a list of those that differ."""
        if self.option is None:
            return self.text
        setting = OF_A_FILE.match(self.text)
        if setting:
            return setting[1]
        return f"{self.option} of {self.device}" if self.device else self.option


def parse(lines: Iterable[str]) -> list[VerifyLine]:
    """The lines that are verify's, in their order; all else in the log is passed over."""
    found = []
    for text in lines:
        line = LINE.match(text)
        if line:
            setting = SETTING.match(line["text"])
            parts = setting.groupdict() if setting else {}
            if line["result"] == "passed":
                parts["wanted"] = parts.get("found")
            option = parts.get("option") or ""
            guest = parts.get("device") if option.startswith(OF_GUESTS) else None
            result = "missing" if line["result"].startswith("skipped") else line["result"]
            found.append(VerifyLine(result, line["text"], **parts, guest=guest))
    return found


SHOWN = 6


def summary(names: list[str]) -> str:
    """The names in one line; of many the first few."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def differing(lines: Iterable[VerifyLine]) -> list[str]:
    """Names of the settings that failed."""
    return list(dict.fromkeys(line.name for line in lines if line.result == "failed"))
