# SPDX-License-Identifier: GPL-2.0-or-later
"""Prometheus's programs, out of Debian's packages."""

from __future__ import annotations

from tests import debian
from tests.packages.roots import SUITE


def promtool() -> str:
    """Checks metrics and rules."""
    return str(debian.unpacked("prometheus", SUITE, debian.CACHE) / "usr/bin/promtool")


def node_exporter() -> str:
    """Reads textfiles."""
    root = debian.unpacked("prometheus-node-exporter", SUITE, debian.CACHE)
    return str(root / "usr/bin/prometheus-node-exporter")
