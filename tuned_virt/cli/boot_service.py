# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD's service below a root: whether it is there, and that it starts at boot."""

from __future__ import annotations

import configparser
import os
import subprocess
from pathlib import Path

from tuned_virt.cli.common import CouldNot
from tuned_virt.core.system_root import SystemRoot
from tuned_virt.kernel.systemd import SERVICE

ADMINISTRATORS = "/etc/systemd/system"
FOLDERS = ("/usr/lib/systemd/system", "/lib/systemd/system", ADMINISTRATORS)


class BootService:
    """With --root, systemctl writes links and asks no manager, not even for the root itself.

    It writes to etc, which an ostree commit does not have: there the links are made here.
    """

    def __init__(self, system: SystemRoot) -> None:
        self._system = system

    def check(self) -> None:
        """Raises CouldNot where the service is not installed, or is masked."""
        link = self._folder() / SERVICE
        if link.is_symlink() and os.readlink(link) == os.devnull:
            raise CouldNot(f"{SERVICE} is masked in {self._system.root}: systemctl unmask tuned")
        if self._unit() is None:
            raise CouldNot(f"there is no {SERVICE} in {self._system.root}: install TuneD's package")
        if not self._system.is_commit and self._systemctl("is-enabled")[0] == "masked":
            raise CouldNot(f"{SERVICE} is masked in {self._system.root}: systemctl unmask tuned")

    def enable(self) -> bool:
        """Have it start at boot; whether it did not. Raises CouldNot and OSError."""
        if self._system.is_commit:
            return any([self._link(target) for target in self._wanted_by()])
        if self._systemctl("is-enabled")[0] == "enabled":
            return False
        error = self._systemctl("enable")[1]
        if error:
            raise CouldNot(f"systemctl --root={self._system.root} enable {SERVICE}: {error}")
        return True

    def _systemctl(self, verb: str) -> tuple[str, str]:
        """What it prints, and why it failed."""
        command = ["systemctl", f"--root={self._system.root}", "--quiet", verb, SERVICE]
        if verb == "is-enabled":
            command.remove("--quiet")
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise CouldNot(f"systemctl cannot be run: {error.strerror}") from error
        return done.stdout.strip(), done.stderr.strip() if done.returncode else ""

    def _unit(self) -> str | None:
        """The unit's name with its folder."""
        names = (f"{folder}/{SERVICE}" for folder in FOLDERS)
        return next((name for name in names if os.path.isfile(self._system.path(name))), None)

    def _folder(self) -> Path:
        return Path(self._system.path(ADMINISTRATORS))

    def _wanted_by(self) -> list[str]:
        """The targets that its [Install] section names."""
        parsed = configparser.ConfigParser(
            delimiters=("=",), strict=False, interpolation=None, allow_no_value=True
        )
        parsed.read_string(self._system.text(self._unit() or ""))
        return parsed.get("Install", "WantedBy", fallback="").split()

    def _link(self, target: str) -> bool:
        link = self._folder() / f"{target}.wants" / SERVICE
        if link.is_symlink():
            return False
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(self._unit() or "")
        return True
