# SPDX-License-Identifier: GPL-2.0-or-later
"""The role's settings as the text of a settings file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: settings_text
short_description: The text of a settings file of tuned-virt-plus
version_added: 0.2.0
description:
  - Writes settings as NAME=VALUE. Lists are joined by spaces, true and false become the setting's
    own word, settings without a value are left out.
positional: _input
options:
  _input:
    description: Values by setting.
    type: dict
    required: true
  groups:
    description: Settings for some of the guests; each has guests, a pattern.
    type: list
    elements: dict
    default: []
  words:
    description: What true and false mean, by setting.
    type: dict
    default: {}
  quoted:
    description: Settings whose value is never a number.
    type: list
    elements: str
    default: []
author:
  - tuned-virt-plus developers
"""

EXAMPLES = r"""
# ksm_mode=off
text: "{{ {'ksm_mode': 'off'} | tuned_virt.plus.settings_text }}"
"""

RETURN = r"""
_value:
  description: The text.
  type: str
"""

HEAD = (
    "# Ansible wrote this file (tuned_virt.plus.tuned_virt) and replaces it at its next run.\n"
    "# man virtual-host-plus-variables.conf and virtual-guest-plus-variables.conf\n"
)


def written(name: str, value: Any, words: Mapping[str, Any], quoted: Collection[str]) -> str:
    """A value as the settings file has it. Raises ValueError."""
    if isinstance(value, bool):
        word = str(value).lower()
        return words.get(name, {}).get(word, word)
    if isinstance(value, (int, float)) and name in quoted:
        raise ValueError(
            f"{name}: YAML has read the number {value}; write the value in quotes, since"
            " 1:4 without them is 64"
        )
    if isinstance(value, (list, tuple)):
        value = " ".join(map(str, value))
    text = str(value)
    if "\n" in text.strip():
        raise ValueError(f"{name}: the value has more than one line")
    return text.strip()


def settings_text(
    settings: Mapping[str, Any],
    groups: Sequence[Mapping[str, Any]] = (),
    words: Mapping[str, Any] | None = None,
    quoted: Collection[str] = (),
) -> str:
    """See DOCUMENTATION."""
    lines = []
    for name, value in sorted(settings.items()):
        if value is not None:
            lines.append(f"{name}={written(name, value, words or {}, quoted)}\n")
    for group in groups:
        for name, value in sorted(group.items()):
            if name != "guests" and value is not None:
                text = written(name, value, words or {}, quoted)
                lines.append(f"{name}.{group['guests']}={text}\n")
    return HEAD + "".join(lines)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> Mapping[str, Any]:
        """The filters by name."""
        return {"settings_text": settings_text}
