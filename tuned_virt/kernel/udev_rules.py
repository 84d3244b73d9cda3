# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether udev's rules would set an attribute of a new device: with their conditions, as udev(7).

What a rule asks of a program is not known here, but for the machine's architecture: such a
condition does not hold, so that a jump over a rule is not taken for sure.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping

from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel.files import KernelFS

FOLDERS = (
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
)
"""From the highest precedence down: a file hides one of its name in a later folder."""

TOKEN = re.compile(r'(\w+)(?:\{([^}]*)\})?\s*(==|!=|\+=|-=|:=|=)\s*[ei]?"((?:\\"|[^"])*)"')
ARCHITECTURE = re.compile(r"(?:\S*/)?uname -[pm]")


@dataclass(frozen=True)
class NewDevice:
    """A device as its first event has it: what keys match, attributes, and the machine."""

    keys: Mapping[str, str]
    attributes: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""


def files(fs: KernelFS) -> Iterator[tuple[str, str]]:
    """Paths and texts of the rules, in udev's order. Raises KernelFileError."""
    found: dict[str, str] = {}
    for folder in FOLDERS:
        for name in fs.names(folder):
            if name.endswith(".rules"):
                found.setdefault(name, f"{folder}/{name}")
    for _, path in sorted(found.items()):
        yield path, fs.read_optional(path) or ""


def sets(fs: KernelFS, text: str, device: NewDevice, attribute: str) -> bool:
    """Whether a file's rules set an attribute of the device, also by a program (RUN)."""
    label = ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        tokens = [] if line.lstrip().startswith("#") else TOKEN.findall(line)
        if label:
            label = "" if ("LABEL", "", "=", label) in tokens else label
            continue
        result = _result(tokens, device)
        if not all(_holds(fs, token, device, result) for token in tokens):
            continue
        if any(_assigns(token, attribute) for token in tokens):
            return True
        label = next((value for key, _, _, value in tokens if key == "GOTO"), "")
    return False


def _result(tokens: list[tuple[str, ...]], device: NewDevice) -> str | None:
    """What the program of a rule prints, where that is known."""
    programs = [value for key, _, _, value in tokens if key == "PROGRAM"]
    return device.machine if programs and ARCHITECTURE.fullmatch(programs[0]) else None


def _holds(fs: KernelFS, token: tuple[str, ...], device: NewDevice, result: str | None) -> bool:
    key, inner, operator, wanted = token
    if operator not in ("==", "!=") or key in ("PROGRAM", "TEST"):
        return True
    found = _value(fs, key, inner, device, result)
    if found is None:
        return False
    fits = any(fnmatch.fnmatchcase(found, one) for one in wanted.split("|"))
    return fits == (operator == "==")


def _value(fs: KernelFS, key: str, inner: str, device: NewDevice, result: str | None) -> str | None:
    """What a key is matched with; None where that is not known."""
    other = re.fullmatch(r"\[dmi/id\](\w+)", inner)
    if key == "ATTR" and other:
        return fs.read_permitted(f"/sys/class/dmi/id/{other[1]}") or ""
    if key in ("ATTR", "ATTRS"):
        return device.attributes.get(inner)
    if key == "RESULT":
        return result
    if key == "CONST" and inner == "arch":
        return device.machine.replace("_", "-")
    return device.keys.get(key)


def _assigns(token: tuple[str, ...], attribute: str) -> bool:
    key, inner, operator, value = token
    if key == "RUN" and operator in ("+=", "=", ":="):
        return re.search(rf"\b{attribute}\b", value) is not None
    return key == "ATTR" and inner == attribute and operator in ("=", ":=")
