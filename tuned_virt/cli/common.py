# SPDX-License-Identifier: GPL-2.0-or-later
"""What the subcommands share: exit codes and the one error."""

from __future__ import annotations

from tuned_virt.kernel.errors import PlainError

FINE = 0
TO_REPORT = 1
COULD_NOT = 2


class CouldNot(PlainError):
    """The command cannot do what was asked; the message says why and what would help."""
