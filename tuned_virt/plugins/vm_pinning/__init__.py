# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests pinned as they start: the planner's placements, carried out, held, verified, undone."""
