# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk as udev's rules see it: from sysfs, and from what udev keeps of it in /run/udev/data."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence

from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.kernel.udev_rules import Token, fits, together

DATABASE = "/run/udev/data"
"""udev's own, one file a device: b8:0, with lines such as E:ID_VENDOR=QEMU."""

VARIABLES = {
    "$kernel": "name",
    "%k": "name",
    "$name": "name",
    "$devpath": "devpath",
    "%p": "devpath",
    "$sys": "sys",
    "%S": "sys",
    "$root": "root",
    "%r": "root",
    "$devnode": "devnode",
    "%N": "devnode",
    "$number": "number",
    "%n": "number",
}
VARIABLE = re.compile(
    r"\$env\{([^}]*)\}|%E\{([^}]*)\}|\$attr\{([^}]*)\}|%s\{([^}]*)\}|\$[a-z]+|%[kpSrNn]"
)


class BlockDevice:
    """A disk or partition at a path of sysfs, for one kind of event.

    silent  its queue does not answer: attributes are not read, as that might wait for ever
    """

    machine = ""

    def __init__(
        self, fs: KernelFS, path: str, action: str, silent: bool = False, kind: str = "disk"
    ) -> None:
        self._fs = fs
        self._path = path
        self._silent = silent
        self._kind = kind
        self.name = path.rpartition("/")[2]
        self.devpath = path.removeprefix("/sys")
        self.sys, self.root, self.devnode = "/sys", "/dev", f"/dev/{self.name}"
        self.number = re.sub(r".*\D", "", self.name)
        self._keys = {
            "ACTION": action,
            "KERNEL": self.name,
            "NAME": self.name,
            "SUBSYSTEM": "block",
            "DEVPATH": self.devpath,
            "DRIVER": "",
        }

    def matches(self, token: Token) -> bool | None:
        """Whether a condition holds; None for what programs say, and tags."""
        key, inner, operator, wanted = token
        if key in self._keys:
            return fits(token, self._keys[key])
        if key == "ATTR":
            return self._attribute(self._path, token)
        if key == "ENV":
            found = self.property(inner)
            return None if found is None else fits(token, found)
        if key == "TEST":
            there = self._exists(self.substitute(wanted))
            return None if there is None else there == (operator == "==")
        return None

    def matches_above(self, tokens: Sequence[Token]) -> bool | None:
        """Whether all hold for the disk, or all for one device above it."""
        found = [
            together(self._matches_at(path, token) for token in tokens) for path in self._above()
        ]
        if True in found:
            return True
        return None if None in found else False

    def substitute(self, text: str) -> str:
        """A value with udev's variables, but for what only its programs know."""
        return VARIABLE.sub(self._variable, text).replace("%%", "%")

    def property(self, name: str) -> str | None:
        """What ENV has of the disk: "" for what udev has not; None where udev has not seen it."""
        if name in ("DEVTYPE", "DEVNAME"):
            return {"DEVTYPE": self._kind, "DEVNAME": self.devnode}[name]
        if name in self._keys:
            return self._keys[name]
        found = self._database
        return None if found is None else found.get(name, "")

    @functools.cached_property
    def _database(self) -> dict[str, str] | None:
        number = self._read(f"{self._path}/dev")
        text = self._read(f"{DATABASE}/b{number}") if number else None
        if text is None:
            return None
        pairs = (line[2:].partition("=") for line in text.splitlines() if line.startswith("E:"))
        return {name: value for name, _, value in pairs}

    def _variable(self, found: re.Match[str]) -> str:
        env = found[1] or found[2]
        attribute = found[3] or found[4]
        if env:
            return self.property(env) or ""
        if attribute:
            return self._read(f"{self._path}/{attribute}") or ""
        known = VARIABLES.get(found[0])
        return getattr(self, known) if known else found[0]

    def _above(self) -> Iterator[str]:
        path = self._path
        while path.startswith("/sys/devices/"):
            yield path
            path = path.rpartition("/")[0]

    def _matches_at(self, path: str, token: Token) -> bool | None:
        key, inner, operator, wanted = token
        if key == "ATTRS":
            return self._attribute(path, ("ATTR", inner, operator, wanted))
        if key == "KERNELS":
            return fits(token, path.rpartition("/")[2])
        if key in ("DRIVERS", "SUBSYSTEMS"):
            link = self._fs.link(f"{path}/{key.lower()[:-1]}") or ""
            return fits(token, link.rpartition("/")[2])
        return None

    def _attribute(self, path: str, token: Token) -> bool | None:
        """An attribute that is not there is neither as wanted nor otherwise (udev-rules.c); one
        that cannot be read may be either."""
        inner = token[1]
        if inner.startswith("["):
            return None
        if self._silent and inner.startswith(("queue/", "../queue/")):
            return None
        try:
            found = self._fs.read_optional(f"{path}/{inner}")
        except KernelFileError:
            return None
        except ValueError:
            return False  # the rule's path is none
        return False if found is None else fits(token, found)

    def _exists(self, path: str) -> bool | None:
        try:
            return self._fs.exists(path if path.startswith("/") else f"{self._path}/{path}")
        except (KernelFileError, ValueError):
            return None

    def _read(self, path: str) -> str | None:
        """A file's text; None where there is none that can be read, or the rule's path is none."""
        try:
            return self._fs.read_permitted(path)
        except (KernelFileError, ValueError):
            return None
