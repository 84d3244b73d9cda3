# SPDX-License-Identifier: GPL-2.0-or-later
"""Ratios against named rivals, measured in one run."""
