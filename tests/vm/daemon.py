# SPDX-License-Identifier: GPL-2.0-or-later
"""The booted machine's own TuneD: started, killed, and spoken to over D-Bus."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Any

import dbus

from tests.sandbox import wait_for

NAME = "com.redhat.tuned"
CONFIGURATION = Path("/etc/tuned")
LOG = Path("/var/log/tuned/tuned.log")

SLOW_SECONDS = 120
"""Deadline for what takes a second or two on a machine that is not emulated."""


def own_profile(name: str, section: str, **options: str) -> str:
    """Write a profile that has these options of one section and nothing else; its name."""
    folder = CONFIGURATION / name
    folder.mkdir(exist_ok=True)
    settings = "\n".join(f"{option}={value}" for option, value in options.items())
    (folder / "tuned.conf").write_text(f"[main]\nsummary={name}\n[{section}]\n{settings}\n")
    return name


class Tuned:
    """One TuneD daemon; nothing but what its configuration names is active after its start."""

    def __init__(self) -> None:
        self._bus = dbus.SystemBus()
        self._daemon: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the daemon's process lives."""
        return self._daemon is not None and self._daemon.poll() is None

    @property
    def pid(self) -> int:
        """The process of the daemon that was started last."""
        assert self._daemon is not None
        return self._daemon.pid

    def start(self) -> None:
        """Start TuneD as its service does, until the profile in its configuration is applied.

        It has its name before it has methods, and a running loop. One that is stopped in between
        hangs: `DBusExporter.stop` tells the loop to quit, which then begins, and waits for its end.
        """
        applied = self._times_applied()
        self._daemon = subprocess.Popen(
            ["tuned", "-l", "-P"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for("tuned on the bus", self._answers, SLOW_SECONDS)
        if (CONFIGURATION / "active_profile").read_text().strip():
            self._wait_until_applied(applied)

    def _answers(self) -> bool:
        with contextlib.suppress(dbus.DBusException):
            self.call("is_running")
            return True
        return False

    def kill9(self) -> None:
        """kill -9, and wait until it is gone."""
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait(SLOW_SECONDS)

    def stop(self) -> None:
        """SIGTERM as systemd sends it, and wait until it is gone.

        A TuneD that answers, and is not yet in its main loop, forgets it (`Controller.run`
        clears the event): it is sent again.
        """
        daemon = self._daemon
        assert daemon is not None

        def gone() -> bool:
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(SLOW_SECONDS / 8)
            return daemon.poll() is not None

        wait_for("tuned is gone", gone, SLOW_SECONDS)

    def forget_profile(self) -> None:
        """Let the next start apply nothing, not even what TuneD would recommend."""
        (CONFIGURATION / "active_profile").write_text("")
        (CONFIGURATION / "profile_mode").write_text("manual\n")

    def call(self, method: str, *arguments: Any) -> Any:
        """A D-Bus method of TuneD."""
        proxy = self._bus.get_object(NAME, "/Tuned", introspect=False)
        method_proxy = proxy.get_dbus_method(method, f"{NAME}.control")
        return method_proxy(*arguments, timeout=SLOW_SECONDS)

    def switch(self, profile: str) -> None:
        """tuned-adm profile NAME, over D-Bus; returns when TuneD says that it is applied."""
        applied = self._times_applied()
        done, message = self.call("switch_profile", profile)
        assert done, str(message)
        if not self.call("is_running"):
            assert self.call("start")
        self._wait_until_applied(applied)

    def switch_to_ksm(self, **options: str) -> None:
        """Switch to a profile that has these options of [ksm] and nothing else."""
        self.switch(own_profile("own", "ksm", **options))

    def off(self) -> None:
        """tuned-adm off, over D-Bus."""
        assert self.call("disable")

    def verify(self) -> tuple[bool, str]:
        """tuned-adm verify, over D-Bus, and the lines that it logs."""
        token = self.call("log_capture_start", 20, SLOW_SECONDS)
        verified = bool(self.call("verify_profile"))
        return verified, str(self.call("log_capture_finish", token))

    def log(self) -> str:
        """All of tuned.log."""
        with contextlib.suppress(FileNotFoundError):
            return LOG.read_text()
        return ""

    def _times_applied(self) -> int:
        return self.log().count("applied\n")

    def _wait_until_applied(self, before: int) -> None:
        def applied() -> bool:
            assert self.running, f"tuned has ended: {self._daemon and self._daemon.returncode}"
            return self._times_applied() > before

        wait_for("profile applied", applied, SLOW_SECONDS)
