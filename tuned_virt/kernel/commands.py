# SPDX-License-Identifier: GPL-2.0-or-later
"""The system's own programs (mount, rmmod, systemctl), with errors in their own words."""

from __future__ import annotations

import subprocess


class ToolError(Exception):
    """A program that could not be run, took too long, or failed; the message is what it said."""


class ToolUnavailable(ToolError):
    """There is no such program, or it ran and failed: for systemctl, systemd may not run here."""


def run(*command: str, seconds: float) -> str:
    """What a program prints that is waited for so long. Raises ToolError."""
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds)
        return done.stdout.strip()
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.split())
        raise ToolUnavailable(said or f"{command[0]}: exit code {error.returncode}") from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{command[0]}: not done after {seconds:g} s") from error
    except FileNotFoundError as error:
        raise ToolUnavailable(f"{command[0]}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ToolError(f"{command[0]}: {error}") from error
