# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs `tuned-virt … --json` on the managed host and returns what it printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

COULD_NOT = 2
"""The exit status of a command that could not do what it was asked; others ran."""


def run(
    module: Any, subcommand: str, arguments: Sequence[str] = (), inside: Sequence[str] = ()
) -> dict[str, Any]:
    """Run a subcommand: `content` is its object, `rc` its exit status. Fails without an object.

    `inside` is a command that runs another one, the subcommand's, in its own surroundings.
    An object that comes with exit status 2 says what could not be read; that is a warning here.
    """
    rc, out, err = module.run_command([*inside, _command(module), subcommand, *arguments, "--json"])
    try:
        content = json.loads(out)
    except ValueError:
        reason = err.strip() or out.strip() or f"it printed nothing and ended with {rc}"
        module.fail_json(msg=f"tuned-virt {subcommand}: {reason}", rc=rc)
    if rc == COULD_NOT and err.strip():
        module.warn(f"tuned-virt {subcommand}: {err.strip()}")
    return {"content": content, "rc": rc}


def installed(module: Any) -> bool:
    """Whether the command is there: before the first installation, in check mode, it is not."""
    return module.get_bin_path("tuned-virt") is not None


def _command(module: Any) -> str:
    found: str = module.get_bin_path("tuned-virt", required=True)
    return found
