# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD over D-Bus, as its clients see it."""

from __future__ import annotations

from typing import Any

from tuned_virt.cli.common import CouldNot
from tuned_virt.core.active_profile import AUTOMATIC, ActiveProfile

NAME = "com.redhat.tuned"
INFO = 20
"""Python's level: verify's lines are at INFO and ERROR."""

CAPTURE_SECONDS = 120
VERIFY_SECONDS = 110
OFF_SECONDS = 110
SWITCH_SECONDS = 110


class NotRunning(CouldNot):
    """No TuneD on the system bus."""


class NotPermitted(CouldNot):
    """TuneD gives what its verify says to root alone."""


class Daemon:
    """A running TuneD. Raises NotRunning where there is none, CouldNot where a call fails."""

    def __init__(self) -> None:
        try:
            import dbus
        except ImportError as error:
            raise CouldNot(f"python3-dbus is missing: {error}") from error
        self._error = dbus.exceptions.DBusException
        try:
            bus = dbus.SystemBus()
            if not bus.name_has_owner(NAME):
                raise NotRunning("TuneD is not running: systemctl start tuned")
            proxy = bus.get_object(NAME, "/Tuned", introspect=False)
        except self._error as error:
            raise NotRunning(f"no D-Bus: {error.get_dbus_message()}") from error
        self._control = dbus.Interface(proxy, f"{NAME}.control")

    def _call(self, method: str, *arguments: Any, seconds: float = 25) -> Any:
        try:
            return getattr(self._control, method)(*arguments, timeout=seconds)
        except self._error as error:
            raise CouldNot(f"TuneD's {method}: {error.get_dbus_message()}") from error

    def active_profile(self) -> str:
        """Names of the active profiles, separated by spaces; "" for none."""
        return str(self._call("active_profile"))

    def active(self) -> ActiveProfile:
        """The active profiles, the post-loaded one apart, and the mode."""
        names = self.active_profile().split()
        post_loaded = str(self._call("post_loaded_profile"))
        if post_loaded and names[-1:] == [post_loaded]:
            names.pop()
        mode, _ = self._call("profile_mode")
        return ActiveProfile(tuple(names), str(mode) == AUTOMATIC, post_loaded)

    def recommended(self) -> str:
        """Names of the profiles that TuneD would choose itself."""
        return str(self._call("recommend_profile", seconds=SWITCH_SECONDS))

    def switch(self, names: str) -> None:
        """tuned-adm profile NAMES; returns once the profiles before are unapplied.

        "" leaves a post-loaded profile alone.
        """
        self._switched(*self._call("switch_profile", names, seconds=SWITCH_SECONDS))

    def automatic(self) -> None:
        """tuned-adm auto_profile, likewise."""
        self._switched(*self._call("auto_profile", seconds=SWITCH_SECONDS))

    def _switched(self, done: bool, why: str) -> None:
        if not done:
            raise CouldNot(f"TuneD could not switch its profile: {why}")
        if not self._call("is_running"):
            self._call("start")

    def off(self) -> bool:
        """tuned-adm off: no profile any more, what it set put back; whether TuneD says so."""
        return bool(self._call("disable", seconds=OFF_SECONDS))

    def verify(self, ignore_missing: bool) -> tuple[bool, list[str]]:
        """Run verify; whether all holds, and every line that TuneD logged meanwhile."""
        token = str(self._call("log_capture_start", INFO, CAPTURE_SECONDS))
        if not token:
            raise NotPermitted("only root can run the verification: sudo tuned-virt verify")
        method = "verify_profile_ignore_missing" if ignore_missing else "verify_profile"
        verified = bool(self._call(method, seconds=VERIFY_SECONDS))
        return verified, str(self._call("log_capture_finish", token)).splitlines()
