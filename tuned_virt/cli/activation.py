# SPDX-License-Identifier: GPL-2.0-or-later
"""Which profile TuneD will apply when it starts: read and written in files, with no daemon.

Works for the running system and for a tree that is being installed (an image, a kickstart's
/mnt/sysroot): only files below the root are read and written, no bus is spoken to. The files are
those of `tuned-adm profile` without a daemon: names in active_profile, `manual` in profile_mode.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path

from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.variables import replace_file
from tuned_virt.core import profile_dirs
from tuned_virt.kernel.systemd import SERVICE
from tuned_virt.registry import tuners

OURS = frozenset({"virtual-host-plus", "virtual-guest-plus"})

ACTIVE = "etc/tuned/active_profile"
MODE = "etc/tuned/profile_mode"

OLD_FOLDERS = ("/usr/lib/tuned", "/etc/tuned")
NEW_FOLDERS = ("/usr/lib/tuned/profiles", "/etc/tuned/profiles")
"""Where TuneD looks for profiles unless tuned-main.conf says: the later folder wins."""

STOCK = "balanced"
"""A profile that every TuneD has; it shows which folders this one uses."""

UNITS = ("usr/lib/systemd/system", "lib/systemd/system", "etc/systemd/system")


class Machine:
    """The TuneD installed below a root. Raises CouldNot where there is none."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        if not root.is_dir():
            raise CouldNot(f"'{root}' is not a folder: give the root of an installed system")
        if not self._inside(profile_dirs.MAIN).is_file():
            raise CouldNot(
                f"TuneD is not installed in {root}: there is no {root}{profile_dirs.MAIN}"
            )

    def _inside(self, path: str) -> Path:
        """A path below the root. Raises CouldNot where a symbolic link leads out of it."""
        found = Path(os.path.realpath(self.root / path.lstrip("/")))
        root = Path(os.path.realpath(self.root))
        if root != found and root not in found.parents:
            raise CouldNot(f"{self.root / path} leads out of {self.root}, to {found}")
        return found

    def folders(self) -> list[str]:
        """Folders of profiles, the one that wins last."""
        named = profile_dirs.named(self._text(profile_dirs.MAIN))
        if named:
            return named
        new = self._inside(f"{NEW_FOLDERS[0]}/{STOCK}/tuned.conf").exists()
        return list(NEW_FOLDERS if new else OLD_FOLDERS)

    def profile(self, name: str) -> Path | None:
        """A profile's tuned.conf, None where there is no such profile."""
        if not re.fullmatch(r"[\w.+-]+", name) or name.startswith("."):
            return None
        for folder in reversed(self.folders()):
            file = self._inside(f"{folder}/{name}/tuned.conf")
            if file.is_file():
                return file
        return None

    def active(self) -> list[str]:
        """Names of the profiles that TuneD applies when it starts."""
        return self._text(ACTIVE).split()

    def uses(self, name: str, wanted: Collection[str]) -> bool:
        """Whether a profile is, or includes, one of these; if none is named, anything of ours."""
        return any(
            current in (wanted or OURS) or (not wanted and plugins & tuners().keys())
            for current, plugins in self._chain(name)
        )

    def plugins(self, name: str) -> set[str]:
        """Plugins of a profile and all that it includes."""
        return {plugin for _, plugins in self._chain(name) for plugin in plugins}

    def _chain(self, name: str) -> Iterator[tuple[str, set[str]]]:
        """A profile and all that it includes, each once, with the plugins of its sections."""
        todo, seen = [name], set()
        while todo:
            current = todo.pop()
            if current not in seen:
                seen.add(current)
                parsed = self._parsed(current)
                yield current, {parsed.get(key, "type", fallback=key) for key in parsed.sections()}
                text = parsed.get("main", "include", fallback="")
                todo += [word.lstrip("-") for word in re.split(r"[\s,;]+", text) if word]

    def _parsed(self, name: str) -> configparser.ConfigParser:
        """Empty where TuneD cannot load the profile either."""
        parsed = configparser.ConfigParser(
            delimiters=("=",), inline_comment_prefixes=("#",), strict=False, interpolation=None
        )
        file = self.profile(name)
        with contextlib.suppress(configparser.Error, UnicodeDecodeError):
            parsed.read([file] if file else [])
        return parsed

    def _text(self, path: str) -> str:
        file = self._inside(path)
        return file.read_text(errors="replace") if file.exists() else ""

    def enable(self, names: list[str]) -> None:
        """Have TuneD apply these profiles when it starts, and have it start at boot.

        Raises CouldNot, with nothing changed, or OSError.
        """
        for name in names:
            if self.profile(name) is None:
                raise CouldNot(
                    f"there is no profile '{name}' in {' or '.join(self.folders())} of {self.root}"
                )
        if not any(self._inside(f"{folder}/{SERVICE}").exists() for folder in UNITS):
            raise CouldNot(f"there is no {SERVICE} in {self.root}: install TuneD's package")
        self._enable_service()
        self._write(names)

    def _enable_service(self) -> None:
        """With --root, systemctl writes links and asks no manager, not even for the root itself."""
        command = ["systemctl", f"--root={self.root}", "--quiet", "enable", SERVICE]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise CouldNot(f"systemctl cannot be run: {error.strerror}") from error
        if done.returncode:
            raise CouldNot(f"{' '.join(command)}: {done.stderr.strip()}")

    def disable(self) -> None:
        """Have TuneD apply nothing when it starts, as `tuned-adm off` leaves it. Raises OSError."""
        self._write([])

    def _write(self, names: list[str]) -> None:
        replace_file(self._inside(MODE), "manual\n")
        replace_file(self._inside(ACTIVE), f"{' '.join(names)}\n" if names else "")
