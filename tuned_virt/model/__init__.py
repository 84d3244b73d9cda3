# SPDX-License-Identifier: GPL-2.0-or-later
"""The host and its guests as values; XML of others, bounded."""
