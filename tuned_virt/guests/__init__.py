# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests as TuneD devices: claimed, tracked, put back."""
