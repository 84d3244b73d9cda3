# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel files, CPU sets, NUMA maps, page migration, systemd, the system's programs."""
