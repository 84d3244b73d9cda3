# SPDX-License-Identifier: GPL-2.0-or-later
"""`python3 -m tuned_virt` is the `tuned-virt` command, with nothing installed."""

from __future__ import annotations

from tuned_virt.cli import entry

entry()
