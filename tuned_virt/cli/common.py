# SPDX-License-Identifier: GPL-2.0-or-later
"""What the subcommands share: exit codes, the one error, and output as JSON."""

from __future__ import annotations

import json
from typing import Any

FINE = 0
TO_REPORT = 1
COULD_NOT = 2


class CouldNot(Exception):
    """The command cannot do what was asked; the message says why and what would help."""


def print_json(content: Any) -> None:
    """Print for programs."""
    print(json.dumps(content, indent=2))
